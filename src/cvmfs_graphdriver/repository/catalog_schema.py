"""The tables of a catalog and how a row becomes an entry and back (format reference, sections 3.1-3.6).

Owns: SQL text, columns, flag arithmetic, and the distrust of columns: what comes out of a database is cast by
SQLite to the type that it should have. Must not know: files, who reads or writes.
"""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cvmfs_graphdriver.repository.digest import Algorithm, Digest, PathKey
from cvmfs_graphdriver.repository.entry import Compression, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError

__all__ = ["COLUMNS", "INSERT_ENTRY", "PAGE_SIZE", "TABLES", "columns", "entry_of", "mapped", "row_of"]

PAGE_SIZE: Final = 1024
TABLES: Final = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));",
    "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, "
    "hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, "
    "flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,  "
    "CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));",
    "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);",
    "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER,  hash BLOB,  "
    "CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),  "
    "FOREIGN KEY (md5path_1, md5path_2) REFERENCES    catalog(md5path_1, md5path_2));",
    "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));",
    "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));",
    "CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));",
)

INSERT_ENTRY: Final = (
    "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, "
    "mtimens, flags, name, symlink, uid, gid, xattr) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
)

_ALGORITHM_SHIFT, _ALGORITHM_MASK = 8, 0x7
_COMPRESSION_SHIFT, _COMPRESSION_MASK = 11, 0x7
_FLAG_MASK = sum(flag.value for flag in EntryFlag)
_DEVICE = (stat.S_IFCHR, stat.S_IFBLK)

# SQLite would hand out whatever a hostile writer stored; a cast makes it the right type, at C's speed.
COLUMNS: Final = (
    "rowid, CAST(name AS BLOB), CAST(hash AS BLOB), ifnull(CAST(size AS INTEGER), 0), "
    "ifnull(CAST(mode AS INTEGER), 0), ifnull(CAST(mtime AS INTEGER), 0), {mtimens}, "
    "ifnull(CAST(flags AS INTEGER), 0), {hardlinks}, CAST(symlink AS BLOB), {owner}, {xattr}, "
    "ifnull(CAST(parent_1 AS INTEGER), 0), ifnull(CAST(parent_2 AS INTEGER), 0)"
)


def columns(schema: float, revision: int) -> str:
    """The columns to select, in the order that ``entry_of`` wants, for a schema and its revision."""
    old = schema < 2.1
    return COLUMNS.format(
        mtimens="CAST(mtimens AS INTEGER)" if schema >= 2.5 and revision >= 7 else "NULL",
        hardlinks="1" if old else "ifnull(CAST(hardlinks AS INTEGER), 0)",
        owner="0, 0" if old else "ifnull(CAST(uid AS INTEGER), 0), ifnull(CAST(gid AS INTEGER), 0)",
        xattr="CAST(xattr AS BLOB)" if schema >= 2.5 and revision >= 2 else "NULL",
    )


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turns SQLite's errors into ours: the database ``what`` is broken."""
    try:
        yield
    except (sqlite3.Error, FormatError, OverflowError, UnicodeDecodeError) as error:
        raise CatalogError(f"{what} cannot be used: {error}") from error


_decoded: dict[int, tuple[EntryFlag, Algorithm, Compression]] = {}


def _decode(flags: int) -> tuple[EntryFlag, Algorithm, Compression]:
    """The three things in the ``flags`` column. There are few different ones, so each is worked out once."""
    known = _decoded.get(flags)
    if known is None:
        try:
            algorithm = Algorithm((flags >> _ALGORITHM_SHIFT & _ALGORITHM_MASK) + 1)
            compression = Compression(flags >> _COMPRESSION_SHIFT & _COMPRESSION_MASK)
        except ValueError as error:
            raise CatalogError(
                f"an entry has the flags {flags:#x}, which name an unknown algorithm"
            ) from error
        known = EntryFlag(flags & _FLAG_MASK), algorithm, compression
        if len(_decoded) < 10_000:
            _decoded[flags] = known
    return known


def entry_of(row: tuple[Any, ...]) -> DirectoryEntry:
    """The entry in a row of ``columns``. Raises CatalogError: the row contradicts itself."""
    number, name, raw, size, mode, mtime, fraction, bits, hardlinks, symlink, uid, gid, xattr, *_ = row
    flags, algorithm, compression = _decode(bits)
    name = name or b""
    if b"/" in name or b"\0" in name or name in {b".", b".."}:
        raise CatalogError(f"an entry has the name {name!r}")
    kind = stat.S_IFMT(mode)
    rdev = 0
    target = b""
    if kind == stat.S_IFLNK:
        target = symlink or b""
        size = len(target)
    elif kind in _DEVICE:
        rdev, size = size & 0xFFFFFFFF, 0
    if size < 0:
        raise CatalogError(f"the entry {name!r} has a negative size")
    if raw:
        if len(raw) != algorithm.size:
            raise CatalogError(f"the entry {name!r} has a digest of {len(raw)} bytes")
        digest = Digest(algorithm, raw) if any(raw) else None
    else:
        digest = None
    return DirectoryEntry(
        name, mode & 0xFFFF, size, mtime, fraction, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, flags,
        hardlinks & 0xFFFFFFFF or 1, hardlinks >> 32 & 0xFFFFFFFF, digest, target, rdev, xattr or b"",
        algorithm, compression, number,
    )  # fmt: skip


def row_of(key: PathKey, parent: PathKey, entry: DirectoryEntry) -> tuple[Any, ...]:
    """The values of INSERT_ENTRY."""
    size = entry.size
    if entry.is_symlink:
        size = len(entry.symlink)
    elif stat.S_IFMT(entry.mode) in _DEVICE:
        size = entry.rdev
    algorithm = 0 if entry.hash_algorithm is Algorithm.MD5 else entry.hash_algorithm.value - 1
    flags = entry.flags.value | algorithm << _ALGORITHM_SHIFT | entry.compression.value << _COMPRESSION_SHIFT
    return (
        *key, *parent, entry.hardlink_group << 32 | entry.linkcount,
        entry.digest.raw if entry.digest else None, size, entry.mode, entry.mtime, entry.mtime_ns, flags,
        entry.name, entry.symlink, entry.uid, entry.gid, entry.xattr or None,
    )  # fmt: skip
