"""The vocabulary of catalogs: one directory entry, one chunk, one reference to a nested catalog.

Owns: the meaning of a catalog row's columns (CernVM-FS format reference, sections 3.5 and 3.6).
Must not know: SQL, nor where a catalog comes from.
"""

import stat
from enum import Enum, IntFlag
from typing import NamedTuple

from cvmfs_graphdriver.repository.digest import Algorithm, Digest

__all__ = [
    "CATALOG_MARKER",
    "LISTED_ELSEWHERE",
    "CatalogReference",
    "Chunk",
    "Compression",
    "DirectoryEntry",
    "EntryFlag",
]

CATALOG_MARKER = b".cvmfscatalog"
"""The file by which stock tools know the root of a nested catalog (section 4.1)."""


class EntryFlag(IntFlag):
    """Bits of the ``flags`` column, without the two small numbers that share it."""

    DIRECTORY = 1
    NESTED_MOUNTPOINT = 2
    FILE = 4
    SYMLINK = 8
    SPECIAL = 16
    NESTED_ROOT = 32
    CHUNKED = 64
    EXTERNAL = 128
    BIND_MOUNTPOINT = 0x4000
    HIDDEN = 0x8000
    DIRECT_IO = 0x10000


class Compression(Enum):
    """How an object is stored; the value is the code in bits 11-13 of the flags."""

    ZLIB = 0
    NONE = 1


class DirectoryEntry(NamedTuple):
    """One entry of a catalog. A tuple, since catalogs are read by the hundred thousand entries.

    ``name`` is the last path component (``b""`` for a repository's root), ``mode`` a whole st_mode, ``mtime``
    in seconds, ``mtime_ns`` its fraction in nanoseconds or None where the catalog has none, ``size`` in
    bytes as stat shows it except for symlinks, whose length follows from ``symlink``; ``rdev`` is the
    kernel's encoded device number (0 unless a device), ``xattr`` the stored blob (section 3.7) or empty.
    ``hardlink_group`` is local to its catalog, 0 for none. ``digest`` is None for what has no bulk object.
    """

    name: bytes
    mode: int
    size: int = 0
    mtime: int = 0
    mtime_ns: int | None = None
    uid: int = 0
    gid: int = 0
    flags: EntryFlag = EntryFlag(0)
    linkcount: int = 1
    hardlink_group: int = 0
    digest: Digest | None = None
    symlink: bytes = b""
    rdev: int = 0
    xattr: bytes = b""
    hash_algorithm: Algorithm = Algorithm.SHA1
    compression: Compression = Compression.ZLIB
    row: int = 0
    """The row number in the catalog it was read from; 0 if it was not read from one."""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_special(self) -> bool:
        """A device, fifo or socket."""
        return not (self.is_directory or self.is_regular or self.is_symlink)

    @property
    def is_chunked(self) -> bool:
        return EntryFlag.CHUNKED in self.flags

    @property
    def is_external(self) -> bool:
        return EntryFlag.EXTERNAL in self.flags

    @property
    def is_hidden(self) -> bool:
        return EntryFlag.HIDDEN in self.flags

    @property
    def is_hidden_marker(self) -> bool:
        """A catalog marker that is there for stock tools only: no user sees it, not even by its name."""
        return self.name == CATALOG_MARKER and self.is_hidden


LISTED_ELSEWHERE = EntryFlag.NESTED_MOUNTPOINT.value | EntryFlag.BIND_MOUNTPOINT.value
"""Flags of directories whose content another catalog lists; a number, which is quicker to test than flags."""


class Chunk(NamedTuple):
    """A piece of a chunked file: ``offset`` and ``size`` in bytes of the uncompressed file (section 5)."""

    offset: int
    size: int
    digest: Digest


class CatalogReference(NamedTuple):
    """What a catalog says of a nested catalog (or bind mountpoint): where, which, its uncompressed size.

    ``size`` is 0 where the schema is too old to have it.
    """

    path: bytes
    digest: Digest
    size: int
