"""An object on its way into the cache: what is wanted, and the sink that verifies it.

Owns: what "verified" means: the digest of the bytes as they are stored on servers (CernVM-FS format
reference, section 1.4) is checked before the file gets its name. Must not know: who asks, servers, catalogs.
"""

import os
from typing import NamedTuple

from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.cache.ledger import Kind, Record
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import Decompressor, most_stored
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError

__all__ = ["Arrival", "Wanted"]


class Wanted(NamedTuple):
    """An object to fetch; ``size`` is its uncompressed size in bytes, or an upper limit if not ``exact``.

    ``path`` is its path on servers if that is not the usual one, ``span`` the range of bytes there if it is
    part of a larger file. ``label`` describes it in messages. ``volatile`` objects are evicted first.
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
    def location(self) -> str:
        """Its path on servers."""
        return self.path or self.name.path

    @property
    def key(self) -> int:
        """The key for sharding it over proxies."""
        return int.from_bytes(self.name.digest.raw[:4], "little")

    def record(self, cache: Cache) -> Record:
        """Its record in the ledger of ``cache`` before it has arrived."""
        return Record(
            cache.name(self.name.digest, self.compression),
            self.size if self.exact else 0,
            path=self.label,
            kind=Kind.CATALOG if self.name.suffix is Suffix.CATALOG else Kind.REGULAR,
            volatile=self.volatile,
        )


class Arrival:
    """A sink that verifies and decompresses into the cache; end it by ``commit``, ``keep`` or ``abandon``."""

    def __init__(self, wanted: Wanted, cache: Cache) -> None:
        """Raises CacheError."""
        self._wanted = wanted
        self._cache = cache
        self._incoming = cache.begin(wanted.record(cache))

    @property
    def size(self) -> int:
        """Bytes of content so far."""
        return self._incoming.size

    @property
    def crc32(self) -> int:
        """Their CRC-32."""
        return self._incoming.crc32

    def commit(self) -> None:
        """Make the object, which has been verified, appear. Raises CacheError; then abandon it."""
        self._cache.commit(self._incoming)
        self._incoming.close()

    def keep(self) -> int:
        """Like ``commit``, but returns a descriptor for reading it, which belongs to the caller."""
        try:
            descriptor = self._incoming.reopen()
        except OSError as error:
            name = self._wanted.name
            raise CacheError(f"cannot read {name} from the cache: {error.strerror}") from error
        try:
            self.commit()
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def abandon(self) -> None:
        """Discard what has arrived."""
        self._incoming.close()

    # Methods of ``Sink``

    @property
    def most(self) -> int:
        return most_stored(self._wanted.size, self._wanted.compression)

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
            raise DigestMismatchError(f"{wanted.label} {wanted.name}: the content does not match this digest")
        try:
            self._incoming.write(self._decompressor.finish())
        except FormatError as error:
            raise FormatError(f"{wanted.label} {wanted.name}: {error}") from error
        size = self._incoming.size
        if wanted.exact and size != wanted.size:
            raise FormatError(f"{wanted.label} {wanted.name} has {size} bytes, not {wanted.size}")
