"""An object by its name: from the cache, else from the network into the cache, verified on the way.

Owns: one download per object however many threads ask, and what "verified" means: the digest over the bytes
as they are stored (CernVM-FS format reference, section 1.4), checked before the file gets its name. Must
not know: catalogs, paths, FUSE.
"""

import os
import threading
from concurrent.futures import Future
from typing import IO

from cvmfs_graphdriver.client.cache import Cache
from cvmfs_graphdriver.client.transfer import Transfer
from cvmfs_graphdriver.repository.compression import Decompressor
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from cvmfs_graphdriver.repository.entry import Compression
from cvmfs_graphdriver.repository.errors import DigestMismatchError

__all__ = ["Fetcher"]


class Fetcher:
    """Gives descriptors of cached objects; safe for any number of threads."""

    def __init__(self, transfer: Transfer, cache: Cache) -> None:
        self._transfer = transfer
        self._cache = cache
        self._lock = threading.Lock()
        self._running: dict[Digest, Future[None]] = {}

    def open(
        self,
        name: ObjectName,
        *,
        size: int,
        exact: bool = True,
        compression: Compression = Compression.ZLIB,
        path: str = "",
    ) -> int:
        """A descriptor of the object, which belongs to the caller.

        ``size`` is its uncompressed size, exactly or as an upper limit; ``path`` is where servers have it,
        if not at its usual place. Raises TransferError, DigestMismatchError, FormatError, CacheError.
        """
        while True:
            known = self._cache.open(name.digest, size if exact else None)
            if known is not None:
                return known
            with self._lock:
                running = self._running.get(name.digest)
                mine: Future[None] = Future()
                if running is None:
                    self._running[name.digest] = mine
            if running is not None:
                running.result()
                continue
            try:
                descriptor = self._fetch(name, size, exact, compression, path or name.path)
            except BaseException as error:
                mine.set_exception(error)
                raise
            else:
                mine.set_result(None)
                return descriptor
            finally:
                with self._lock:
                    del self._running[name.digest]

    def _fetch(self, name: ObjectName, size: int, exact: bool, compression: Compression, path: str) -> int:
        with self._cache.store(name.digest) as file:
            self._transfer.fetch(path, _Verified(name, file, size, exact, compression))
            return os.dup(file.fileno())


class _Verified:
    """A sink that decompresses into a file and checks digest and size."""

    def __init__(
        self, name: ObjectName, file: IO[bytes], size: int, exact: bool, compression: Compression
    ) -> None:
        self._name = name
        self._file = file
        self._size = size
        self._exact = exact
        self._compression = compression
        self.begin()

    def begin(self) -> None:
        self._hasher = self._name.digest.algorithm.new()
        self._decompressor = Decompressor(self._compression)
        self._written = 0
        self._file.seek(0)
        self._file.truncate()

    def write(self, data: bytes) -> None:
        self._hasher.update(data)
        self._store(self._decompressor.feed(data))

    def finish(self) -> None:
        if self._hasher.digest() != self._name.digest.raw:
            raise DigestMismatchError(f"object {self._name}: the server's bytes do not have this digest")
        self._store(self._decompressor.finish())
        if self._exact and self._written != self._size:
            raise DigestMismatchError(
                f"object {self._name} has {self._written} bytes where its catalog says {self._size}"
            )

    def _store(self, data: bytes) -> None:
        self._written += len(data)
        if self._written > self._size:
            raise DigestMismatchError(
                f"object {self._name} is bigger than the {self._size} bytes it should have"
            )
        self._file.write(data)
