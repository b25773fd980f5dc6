"""The cache: decompressed objects as files, each complete and verified before it gets its name.

Owns: the layout below the cache directory (CernVM-FS format reference, section 9.1) and how a file appears
there. Must not know: the network, catalogs, trust. Processes may share a cache directory: names are digests
and files appear by rename, so two that store the same object do no harm.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.repository.digest import Digest, ObjectName

__all__ = ["Cache"]


class Cache:
    """A directory of objects named by digest."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("txn", "quarantaine", *(f"{number:02x}" for number in range(256))):
                (directory / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot use the cache directory {directory}: {error.strerror}") from error

    def path(self, digest: Digest) -> Path:
        """Where the object is, or would be."""
        return self.directory / ObjectName(digest).cache_path

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
        """Take a damaged object out of the way, and keep it for inspection."""
        try:
            self.path(digest).rename(self.directory / "quarantaine" / digest.text)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CacheError(f"cannot move {digest} to the quarantine: {error.strerror}") from error

    @contextmanager
    def store(self, digest: Digest) -> Iterator[IO[bytes]]:
        """Write an object: it appears when the block ends without an error, whole, else never."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.directory / "txn", prefix="fetch") as file:
                yield file
                file.flush()
                # A hard link, not a rename: the temporary file then removes its own name in any case.
                path = self.path(digest)
                linked = f"{file.name}.new"
                os.link(file.name, linked)
                os.rename(linked, path)
        except OSError as error:
            raise CacheError(
                f"cannot store {digest} in the cache {self.directory}: {error.strerror}"
            ) from error
