"""The cache: decompressed objects as files, each complete and verified before it gets its name.

Owns: the layout below the cache directory (CernVM-FS format reference, section 9.1) and how a file appears
there. Must not know: the network, catalogs, trust. Processes may share a cache directory: names are digests
and files appear by rename, so two that store the same object do no harm.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.repository.digest import Digest, ObjectName

__all__ = ["Cache", "Incoming"]

_TRANSACTIONS = "txn"
_QUARANTINE = "quarantaine"
_MODE = 0o700


class Incoming:
    """An object on its way into the cache; it has no name there yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0
        """Bytes written so far."""

    def restart(self) -> None:
        """Forget what was written."""
        if self.size:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self.size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises CacheError: the disk is full or broken."""
        self.size += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise CacheError(f"cannot write to the cache ({self._path}): {error.strerror}") from error

    def reopen(self) -> int:
        """A descriptor for reading what was written; it belongs to the caller."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)


class Cache:
    """A directory of objects named by digest; safe for threads, and for several processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = os.fspath(directory)
        self._numbers = itertools.count()
        try:
            directory.mkdir(mode=_MODE, parents=True, exist_ok=True)
            for name in (_TRANSACTIONS, _QUARANTINE, *(f"{number:02x}" for number in range(256))):
                (directory / name).mkdir(mode=_MODE, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot use the cache directory {directory}: {error.strerror}") from error

    def path(self, digest: Digest) -> str:
        """Where the object is, or would be."""
        return f"{self._root}/{ObjectName(digest).cache_path}"

    def open(self, digest: Digest, size: int | None = None) -> int | None:
        """A descriptor of the object for reading, None if it is not there.

        ``size`` is what the object has uncompressed, if that is known: a file of another size was damaged,
        is moved to the quarantine and counts as not there. Raises CacheError.
        """
        path = self.path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"cannot open {path} in the cache: {error.strerror}") from error
        if size is not None and os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            self.quarantine(digest)
            return None
        return descriptor

    def quarantine(self, digest: Digest) -> None:
        """Take a damaged object out of the way, and keep it for inspection. Raises CacheError."""
        try:
            os.rename(self.path(digest), f"{self._root}/{_QUARANTINE}/{digest}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise CacheError(f"cannot move {digest} to the quarantine: {error.strerror}") from error

    @contextmanager
    def store(self, digest: Digest) -> Iterator[Incoming]:
        """Write an object: it appears when the block ends without an error, whole, else never.

        Raises CacheError: the directory cannot be written to.
        """
        temporary = f"{self._root}/{_TRANSACTIONS}/{digest}.{os.getpid()}.{next(self._numbers)}"
        path = self.path(digest)
        try:
            incoming = self._begin(temporary)
        except OSError as error:
            raise CacheError(f"cannot write to the cache ({temporary}): {error.strerror}") from error
        try:
            yield incoming
            self._rename(temporary, path)
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            if isinstance(error, OSError):
                raise CacheError(f"cannot store {digest} in the cache: {error.strerror}") from error
            raise
        finally:
            incoming.close()

    def _begin(self, temporary: str) -> Incoming:
        try:
            return Incoming(temporary)
        except FileNotFoundError:
            # Somebody wiped the directory underneath.
            os.makedirs(os.path.dirname(temporary), _MODE, exist_ok=True)
            return Incoming(temporary)

    def _rename(self, temporary: str, path: str) -> None:
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), _MODE, exist_ok=True)
            os.rename(temporary, path)
