"""An object on its way into the cache: what is wanted, and the sink that verifies it.

Owns: what "verified" means: the digest over the bytes as they are stored (CernVM-FS format reference,
section 1.4), checked before the file gets its name. Must not know: who asks, servers, catalogs.
"""

import os
from typing import NamedTuple

from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.cache.ledger import Kind, Record
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import Decompressor
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError

__all__ = ["Arrival", "Wanted"]


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
    def location(self) -> str:
        """Where servers have it."""
        return self.path or self.name.path

    @property
    def key(self) -> int:
        """What decides where it is sharded."""
        return int.from_bytes(self.name.digest.raw[:4], "little")

    @property
    def record(self) -> Record:
        """What the cache's ledger knows of it before it has come."""
        return Record(
            self.name.digest.text,
            self.size if self.exact else 0,
            path=self.label,
            kind=Kind.CATALOG if self.name.suffix is Suffix.CATALOG else Kind.REGULAR,
            volatile=self.volatile,
        )


class Arrival:
    """A sink that verifies and decompresses into the cache; ends by ``commit``, ``keep`` or ``abandon``."""

    def __init__(self, wanted: Wanted, cache: Cache) -> None:
        """Raises CacheError."""
        self._wanted = wanted
        self._cache = cache
        self._incoming = cache.begin(wanted.record)

    @property
    def size(self) -> int:
        """Bytes of content so far."""
        return self._incoming.size

    @property
    def crc32(self) -> int:
        """Their checksum."""
        return self._incoming.crc32

    def commit(self) -> None:
        """It came, and is right: let it appear. Raises CacheError: it is still to be abandoned."""
        self._cache.commit(self._incoming)
        self._incoming.close()

    def keep(self) -> int:
        """The same; returns a descriptor for reading it, which belongs to the caller."""
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
        """It cannot be had, or not be kept."""
        self._incoming.close()

    # A sink

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
