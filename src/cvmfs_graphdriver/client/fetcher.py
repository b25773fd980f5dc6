"""An object by its name: from the cache, else from the network into the cache, verified on the way.

Owns: one download per object however many threads ask, and what "verified" means: the digest over the bytes
as they are stored (CernVM-FS format reference, section 1.4), checked before the file gets its name. Must
not know: catalogs, paths, FUSE.
"""

import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass

from cvmfs_graphdriver.client.cache import Cache, Incoming
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.ledger import Kind
from cvmfs_graphdriver.client.transfer import Transfer
from cvmfs_graphdriver.repository.compression import Decompressor
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import Compression
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError

__all__ = ["Fetcher", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
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
            self._counters.add("hits")
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

    def has(self, digest: Digest) -> bool:
        """Whether the object is in the cache, or on its way there."""
        return digest in self._running or self._cache.has(digest)

    def _lead(self, wanted: Wanted, size: int | None, transfer: Transfer, future: Future[None]) -> int:
        """Fetch for all who wait for ``future``."""
        try:
            # Whoever fetched it before may have finished since the cache was asked.
            descriptor = self._cache.open(wanted.name.digest, size)
            if descriptor is None:
                descriptor = self._fetch(wanted, transfer)
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(None)
            return descriptor
        finally:
            with self._lock:
                del self._running[wanted.name.digest]

    def _fetch(self, wanted: Wanted, transfer: Transfer) -> int:
        digest = wanted.name.digest
        key = int.from_bytes(digest.raw[:4], "little")
        size = wanted.size if wanted.exact else 0
        label, kind = wanted.label, wanted.kind
        with self._cache.store(
            digest, size=size, label=label, kind=kind, volatile=wanted.volatile
        ) as incoming:
            sink = _Verified(wanted, incoming)
            transfer.fetch(wanted.path or wanted.name.path, sink, key=key, span=wanted.span)
            return incoming.reopen()


class _Verified:
    """A sink that decompresses into a file and checks digest and size."""

    def __init__(self, wanted: Wanted, incoming: Incoming) -> None:
        self._wanted = wanted
        self._incoming = incoming
        self.begin()

    def begin(self) -> None:
        wanted = self._wanted
        self._hasher = wanted.name.digest.algorithm.new()
        self._decompressor = Decompressor(wanted.compression, limit=wanted.size)
        self._incoming.restart()

    def write(self, data: bytes) -> None:
        self._hasher.update(data)
        try:
            self._incoming.write(self._decompressor.feed(data))
        except FormatError as error:
            raise FormatError(f"{self._wanted.label} {self._wanted.name}: {error}") from error

    def finish(self) -> None:
        wanted = self._wanted
        if self._hasher.digest() != wanted.name.digest.raw:
            raise DigestMismatchError(f"{wanted.label} {wanted.name}: the bytes do not have this digest")
        try:
            self._incoming.write(self._decompressor.finish())
        except FormatError as error:
            raise FormatError(f"{wanted.label} {wanted.name}: {error}") from error
        size = self._incoming.size
        if wanted.exact and size != wanted.size:
            raise FormatError(f"{wanted.label} {wanted.name} has {size} bytes, not {wanted.size}")
