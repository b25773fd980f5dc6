"""A storage in a local directory, laid out as by ``cvmfs_server`` (format reference, section 1.3).

Owns: atomic files, their modes, and the lock. A file is written under a unique name in ``data/txn`` and then
renamed, so that neither a reader nor a publisher started after a crash ever sees half of one. A power failure
may leave truncated objects; no revision refers to them, since ``flush`` precedes the manifest, and ``size``
reveals them to the next publisher. A spool is a directory in ``data/txn``, so that what is accepted moves by
renaming; one that was left behind is recognised by its own lock, which nobody holds. Must not know: what a
file contains.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cvmfs_graphdriver.kernel.directories import make_directories
from cvmfs_graphdriver.kernel.syscalls import LIBC
from cvmfs_graphdriver.kernel.whole_file import whole_file, write_whole_file
from cvmfs_graphdriver.publisher.errors import BusyError, StorageError

__all__ = ["LocalStorage"]

_TEMPORARY = "data/txn"
_DIRECTORY_MODE = 0o755
"""As in the stock server: a web server, which runs as another user, reads the storage."""
_POLL = 0.2
_SPOOL = "spool-"


class LocalStorage:
    """The directory of one repository, e.g. ``/srv/cvmfs/<fqrn>``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = os.fspath(directory)
        self._scratch = f"{self._root}/{_TEMPORARY}"

    @classmethod
    def create(cls, directory: Path) -> "LocalStorage":
        """Lay out a new one. Raises StorageError: the directory is not empty."""
        with _mapped("create the storage", directory):
            if directory.exists() and any(directory.iterdir()):
                raise StorageError(f"{directory} is not empty: choose another directory or remove it first")
            for number in range(256):
                make_directories(directory / "data" / f"{number:02x}", _DIRECTORY_MODE)
            make_directories(directory / _TEMPORARY, _DIRECTORY_MODE)
        return cls(directory)

    @property
    def location(self) -> str:
        return str(self.directory)

    @property
    def definition(self) -> str:
        return f"local,{self.directory.absolute()}/{_TEMPORARY},{self.directory.absolute()}"

    @property
    def parallel(self) -> int:
        return 1

    def has(self, name: str) -> bool:
        return os.path.exists(self._path(name))

    # These two are called for every object, so they map errors without a context manager.

    def size(self, name: str) -> int | None:
        path = self._path(name)
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _explained("look for", path, error) from error

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        path = self._path(name)
        try:
            write_whole_file(
                path, data, exact=True, scratch=self._scratch, durable=not name.startswith("data/")
            )
        except OSError as error:
            raise _explained("write", path, error) from error

    # Less frequent operations

    def get(self, name: str, *, limit: int) -> bytes | None:
        with _mapped("read", self.directory / name):
            try:
                with open(self._path(name), "rb") as file:
                    data = file.read(limit + 1)
            except FileNotFoundError:
                return None
        if len(data) > limit:
            raise StorageError(f"{self.directory / name} exceeds the limit of {limit} bytes")
        return data

    def open(self, name: str) -> BinaryIO | None:
        with _mapped("read", self.directory / name):
            try:
                return open(self._path(name), "rb")
            except FileNotFoundError:
                return None

    def put_file(self, name: str, source: Path) -> None:
        with (
            _mapped("write", self.directory / name),
            open(source, "rb") as reader,
            whole_file(self._path(name), exact=True, scratch=self._scratch) as descriptor,
            open(descriptor, "wb", closefd=False) as writer,
        ):
            shutil.copyfileobj(reader, writer, 1 << 20)

    @contextmanager
    def spool(self) -> Iterator["LocalStorage"]:
        with _mapped("write to", self.directory):
            place = Path(tempfile.mkdtemp(prefix=_SPOOL, dir=self._scratch))
        try:
            spool = LocalStorage.create(place)
            with spool.lock(wait=0):
                yield spool
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def adopt(self, spool: "LocalStorage", name: str) -> None:
        with _mapped("write", self.directory / name):
            os.rename(spool._path(name), self._path(name))

    def objects(self) -> Iterator[tuple[str, int]]:
        for number in range(256):
            directory = f"data/{number:02x}"
            with _mapped("list", self.directory / directory), os.scandir(self._path(directory)) as entries:
                found = [
                    (f"{directory}/{entry.name}", entry.stat(follow_symlinks=False).st_size)
                    for entry in entries
                    if entry.is_file(follow_symlinks=False)
                ]
            yield from found

    def flush(self) -> None:
        # One call for all: an fsync per object would take longer than everything else.
        with _mapped("write to", self.directory):
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if LIBC.syncfs(descriptor):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(descriptor)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with _mapped("delete", self.directory / name), suppress(FileNotFoundError):
                os.unlink(self._path(name))

    @contextmanager
    def lock(self, *, wait: float) -> Iterator[None]:
        deadline = time.monotonic() + wait
        path = self.directory / _TEMPORARY / ".lock"
        with _mapped("lock", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise BusyError(
                            f"another publisher is using {self.directory}: try again later"
                        ) from error
                    time.sleep(_POLL)
            self._clear_temporary()
            yield
        finally:
            os.close(descriptor)

    def _clear_temporary(self) -> None:
        """Remove what a killed publisher left behind. Only the holder of the lock writes files there."""
        for entry in os.scandir(self._scratch):
            if entry.name.startswith(_SPOOL) and entry.is_dir(follow_symlinks=False):
                with suppress(BusyError, StorageError), LocalStorage(Path(entry.path)).lock(wait=0):
                    shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != ".lock" and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def _mapped(what: str, path: Path) -> Iterator[None]:
    """Translate the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise _explained(what, path, error) from error


def _explained(what: str, path: str | Path, error: OSError) -> StorageError:
    advice = {
        errno.ENOSPC: "the disk is full: free some space and try again",
        errno.EDQUOT: "the disk quota is exceeded: free some space and try again",
        errno.EACCES: "permission denied: run as the owner of the repository",
        errno.EROFS: "the file system is read-only",
        errno.ENOENT: "there is no such directory: is this a repository's storage?",
    }.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"cannot {what} {path}: {advice}")
