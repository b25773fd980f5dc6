"""An object by its name: from the cache, else from the network into the cache, verified on the way.

Owns: one download per object however many threads ask, and what "verified" means: the digest over the bytes
as they are stored (CernVM-FS format reference, section 1.4), checked before the file gets its name. Must
not know: catalogs, paths, FUSE.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from cvmfs_graphdriver.client.cache import Cache
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.client.ledger import Kind, Record
from cvmfs_graphdriver.client.transfer import Transfer
from cvmfs_graphdriver.repository.compression import Decompressor
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import Compression
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError

__all__ = ["Download", "Fetcher", "Wanted"]


class Wanted(NamedTuple):
    """An object to fetch; ``size`` is its uncompressed size in bytes, or an upper limit if not ``exact``.

    ``path`` is where servers have it if that is not the usual place, ``span`` the bytes there that are the
    object if it is a part of something. ``label`` says in messages what it is. ``volatile`` objects are the
    first to leave the cache.
    """

    name: ObjectName
    size: int
    exact: bool = True
    compression: Compression = Compression.ZLIB
    path: str = ""
    span: tuple[int, int] | None = None
    label: str = "object"
    volatile: bool = False

    @property
    def kind(self) -> Kind:
        """What the cache's ledger calls it."""
        return Kind.CATALOG if self.name.suffix is Suffix.CATALOG else Kind.REGULAR


class Fetcher:
    """Gives descriptors of cached objects; safe for any number of threads."""

    def __init__(self, transfer: Transfer, cache: Cache, counters: Counters) -> None:
        self._transfer = transfer
        self._cache = cache
        self._counters = counters
        self._lock = threading.Lock()
        self._running: dict[Digest, Future[None]] = {}

    def open(self, wanted: Wanted, transfer: Transfer | None = None) -> int:
        """A descriptor of the object, which belongs to the caller.

        ``transfer`` is for what does not come from the usual servers.

        Raises TransferError, DigestMismatchError, FormatError, CacheError.
        """
        digest = wanted.name.digest
        size = wanted.size if wanted.exact else None
        descriptor = self._cache.open(digest, size)
        if descriptor is not None:
            self._counters.add_hit(os.fstat(descriptor).st_size)
            return descriptor
        self._counters.add("misses")
        while True:
            mine: Future[None] = Future()
            with self._lock:
                running = self._running.setdefault(digest, mine)
            if running is mine:
                return self._lead(wanted, size, transfer or self._transfer, mine)
            running.result()
            descriptor = self._cache.open(digest, size)
            if descriptor is not None:
                return descriptor

    def fetch(self, wanted: Wanted) -> None:
        """See that the object is in the cache. Raises as ``open`` does."""
        os.close(self.open(wanted))

    def cached(self, digest: Digest, size: int) -> int | None:
        """A descriptor of the object, None if it is not in the cache. Raises CacheError."""
        return self._cache.open(digest, size)

    def begin(self, wanted: Wanted) -> "Download | None":
        """Take it upon the caller to fetch an object that nobody waits for yet.

        None if it is in the cache, or on its way there. The caller must end the download by ``keep`` or by
        ``fail``. Raises CacheError.
        """
        digest = wanted.name.digest
        mine: Future[None] = Future()
        with self._lock:
            if self._running.setdefault(digest, mine) is not mine:
                return None
        try:
            if not self._cache.has(digest):
                return Download(wanted, self._cache, lambda error: self._end(digest, mine, error))
        except BaseException as error:
            self._end(digest, mine, error)
            raise
        self._end(digest, mine, None)
        return None

    def _lead(self, wanted: Wanted, size: int | None, transfer: Transfer, future: Future[None]) -> int:
        """Fetch for all who wait for ``future``."""
        digest = wanted.name.digest
        try:
            # Whoever fetched it before may have finished since the cache was asked.
            descriptor = self._cache.open(digest, size)
            if descriptor is not None:
                self._end(digest, future, None)
                return descriptor
            download = Download(wanted, self._cache, lambda error: self._end(digest, future, error))
        except BaseException as error:
            self._end(digest, future, error)
            raise
        try:
            transfer.fetch(download.path, download, key=download.key, span=wanted.span)
            return download.keep()
        except BaseException as error:
            download.fail(error)
            raise

    def _end(self, digest: Digest, future: Future[None], error: BaseException | None) -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        with self._lock:
            del self._running[digest]


class Download:
    """An object on its way into the cache, for all who want it: a sink that decompresses and verifies.

    ``ended`` is called once, with the error if there is one, when the object can be had or cannot.
    """

    def __init__(self, wanted: Wanted, cache: Cache, ended: Callable[[BaseException | None], None]) -> None:
        self.wanted = wanted
        self._cache = cache
        self._ended = ended
        self._incoming = cache.begin(
            Record(
                wanted.name.digest.text,
                wanted.size if wanted.exact else 0,
                path=wanted.label,
                kind=wanted.kind,
                volatile=wanted.volatile,
            )
        )

    @property
    def path(self) -> str:
        """Where servers have it."""
        return self.wanted.path or self.wanted.name.path

    @property
    def key(self) -> int:
        """What decides where it is sharded."""
        return int.from_bytes(self.wanted.name.digest.raw[:4], "little")

    def keep(self) -> int:
        """It came, and is right: let it appear; returns a descriptor of it.

        Raises CacheError: it is still to be ended by ``fail``.
        """
        try:
            descriptor = self._incoming.reopen()
        except OSError as error:
            raise CacheError(f"cannot read {self.wanted.name} from the cache: {error.strerror}") from error
        try:
            self._cache.commit(self._incoming)
        except BaseException:
            os.close(descriptor)
            raise
        self._incoming.close()
        self._ended(None)
        return descriptor

    def fail(self, error: BaseException) -> None:
        """It cannot be had, or not be kept."""
        self._incoming.close()
        self._ended(error)

    # A sink

    def begin(self) -> None:
        wanted = self.wanted
        self._hasher = wanted.name.digest.algorithm.new()
        self._decompressor = Decompressor(wanted.compression, limit=wanted.size)
        self._incoming.restart()

    def write(self, data: bytes) -> None:
        self._hasher.update(data)
        try:
            self._incoming.write(self._decompressor.feed(data))
        except FormatError as error:
            raise FormatError(f"{self.wanted.label} {self.wanted.name}: {error}") from error

    def finish(self) -> None:
        wanted = self.wanted
        if self._hasher.digest() != wanted.name.digest.raw:
            raise DigestMismatchError(f"{wanted.label} {wanted.name}: the bytes do not have this digest")
        try:
            self._incoming.write(self._decompressor.finish())
        except FormatError as error:
            raise FormatError(f"{wanted.label} {wanted.name}: {error}") from error
        size = self._incoming.size
        if wanted.exact and size != wanted.size:
            raise FormatError(f"{wanted.label} {wanted.name} has {size} bytes, not {wanted.size}")
