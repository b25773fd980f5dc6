"""The tables of a catalog and how a row becomes an entry and back (format reference, sections 3.1-3.6).

Owns: SQL text, columns, flag arithmetic, and the distrust of columns: what comes out of a database is cast by
SQLite to the type that it should have. Must not know: files, who reads or writes.
"""

import stat
from typing import Any, Final, NamedTuple

from cvmfs_graphdriver.repository.catalog.entry import Compression, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.digest import DIGEST_SIZE, Algorithm, Digest, PathKey
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError

__all__ = [
    "CHUNK_COLUMNS",
    "INSERT_ENTRY",
    "LATEST",
    "TABLES",
    "UPDATE_ENTRY",
    "Schema",
    "entry_of",
    "number_of",
    "row_of",
]

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

_ROW: Final = (
    "(md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, name, "
    "symlink, uid, gid, xattr)"
)
_VALUES: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
INSERT_ENTRY: Final = f"INSERT INTO catalog {_ROW} VALUES {_VALUES}"
UPDATE_ENTRY: Final = f"UPDATE catalog SET {_ROW} = {_VALUES} WHERE md5path_1 = ?1 AND md5path_2 = ?2"

_ALGORITHM_SHIFT, _ALGORITHM_MASK = 8, 0x7
_COMPRESSION_SHIFT, _COMPRESSION_MASK = 11, 0x7
_FLAG_MASK = sum(flag.value for flag in EntryFlag)
_WORD = 0xFFFFFFFF
_FORMAT = 0o170000
_SECOND = 10**9
_NAME_LIMIT = 255
_TARGET_LIMIT = 4095
"""What Linux can show (NAME_MAX, PATH_MAX); one byte more of a target is selected, and refused."""
_NO_DIGEST = bytes(DIGEST_SIZE)
_DEVICE = (stat.S_IFCHR, stat.S_IFBLK)

# SQLite would hand out whatever a hostile writer stored; a cast makes it the right type, at C's speed.
_COLUMNS: Final = (
    "CAST(rowid AS INTEGER), CAST(name AS BLOB), CAST(hash AS BLOB), ifnull(CAST(size AS INTEGER), 0), "
    "ifnull(CAST(mode AS INTEGER), 0), ifnull(CAST(mtime AS INTEGER), 0), {mtimens}, "
    "ifnull(CAST(flags AS INTEGER), 0), {hardlinks}, substr(CAST(symlink AS BLOB), 1, 4096), "
    "{owner}, {xattr}, ifnull(CAST(parent_1 AS INTEGER), 0), ifnull(CAST(parent_2 AS INTEGER), 0)"
)


class Schema(NamedTuple):
    """The schema of a catalog, as its properties say it: such as 2.5, revision 7."""

    number: float
    revision: int

    @property
    def readable(self) -> bool:
        """Whether it has a meaning that is known; 2.0 to 2.3 were never released."""
        return self.number < 2.0 or self.number in {2.4, 2.5}

    @property
    def entry_columns(self) -> str:
        """What to select from ``catalog``, in the order that ``entry_of`` wants."""
        old = self.number < 2.0  # with an inode column instead of hardlinks, uid and gid
        return _COLUMNS.format(
            mtimens="CAST(mtimens AS INTEGER)" if self >= (2.5, 7) else "NULL",
            hardlinks="1" if old else "ifnull(CAST(hardlinks AS INTEGER), 0)",
            owner="0, 0" if old else "ifnull(CAST(uid AS INTEGER), 0), ifnull(CAST(gid AS INTEGER), 0)",
            xattr="CAST(xattr AS BLOB)" if self >= (2.5, 2) else "NULL",
        )

    @property
    def reference_columns(self) -> str:
        """What to select from ``nested_catalogs`` and ``bind_mountpoints``: path, digest, size."""
        size = "ifnull(CAST(size AS INTEGER), 0)" if self >= (2.5, 1) else "0"
        return f"ifnull(CAST(path AS BLOB), x''), ifnull(CAST(sha1 AS BLOB), x''), {size}"


LATEST: Final = Schema(2.5, 7)
"""The schema of ``TABLES``."""


CHUNK_COLUMNS: Final = (
    "ifnull(CAST(offset AS INTEGER), 0), ifnull(CAST(size AS INTEGER), 0), ifnull(CAST(hash AS BLOB), x'')"
)
"""What to select from ``chunks``: offset, size, digest."""


def number_of(key: str, text: str) -> int:
    """The value of a property that is a number. Raises FormatError: it is not."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"its property {key} = {text[:40]!r} is not a number")
    return int(text)


_DECODED_LIMIT = 10_000
_decoded: dict[int, tuple[EntryFlag, Algorithm, Compression]] = {}


def _decode(flags: int) -> tuple[EntryFlag, Algorithm, Compression]:
    """The three things in the ``flags`` column. There are few different ones, so each is worked out once."""
    try:
        algorithm = Algorithm((flags >> _ALGORITHM_SHIFT & _ALGORITHM_MASK) + 1)
        compression = Compression(flags >> _COMPRESSION_SHIFT & _COMPRESSION_MASK)
    except ValueError as error:
        raise CatalogError(f"an entry has the flags {flags:#x}, which name an unknown algorithm") from error
    decoded = EntryFlag(flags & _FLAG_MASK), algorithm, compression
    if len(_decoded) < _DECODED_LIMIT:
        _decoded[flags] = decoded
    return decoded


def entry_of(row: tuple[Any, ...]) -> DirectoryEntry:
    """The entry in a row of ``entry_columns``. Raises CatalogError: the row contradicts itself."""
    number, name, raw, size, mode, mtime, fraction, bits, hardlinks, symlink, uid, gid, xattr, _, _ = row
    flags, algorithm, compression = _decoded.get(bits) or _decode(bits)
    if name is None:
        name = b""
    elif b"/" in name or b"\0" in name or name == b"." or name == b"..":  # noqa: PLR1714  as fast as can be
        raise CatalogError(f"an entry has the name {name!r}")
    elif len(name) > _NAME_LIMIT:
        raise CatalogError(f"an entry has a name of {len(name)} bytes: {name[:40]!r}…")
    mode &= 0xFFFF
    kind = mode & _FORMAT
    rdev = 0
    target = b""
    if kind == stat.S_IFLNK:
        target = symlink or b""
        if len(target) > _TARGET_LIMIT:
            raise CatalogError(f"the symbolic link {name!r} has a target of more than {_TARGET_LIMIT} bytes")
        size = len(target)
    elif kind in _DEVICE:
        rdev, size = size & _WORD, 0
    if size < 0:
        raise CatalogError(f"the entry {name!r} has a negative size")
    if fraction is not None and not 0 <= fraction < _SECOND:
        raise CatalogError(f"the entry {name!r} has a time with {fraction} nanoseconds")
    digest = None
    if raw:
        if len(raw) != DIGEST_SIZE:
            raise CatalogError(f"the entry {name!r} has a digest of {len(raw)} bytes")
        if raw != _NO_DIGEST:
            digest = Digest(algorithm, raw)
    return DirectoryEntry(
        name, mode, size, mtime, fraction, uid & _WORD, gid & _WORD, flags, hardlinks & _WORD or 1,
        hardlinks >> 32 & _WORD, digest, target, rdev, xattr or b"", algorithm, compression, number,
    )  # fmt: skip


def row_of(key: PathKey, parent: PathKey, entry: DirectoryEntry) -> tuple[Any, ...]:
    """The values of INSERT_ENTRY and UPDATE_ENTRY."""
    size = entry.size
    if entry.is_symlink:
        size = len(entry.symlink)
    elif stat.S_IFMT(entry.mode) in _DEVICE:
        size = entry.rdev
    flags = (
        entry.flags.value
        | entry.hash_algorithm.value - 1 << _ALGORITHM_SHIFT
        | entry.compression.value << _COMPRESSION_SHIFT
    )
    return (
        *key, *parent, entry.hardlink_group << 32 | entry.linkcount,
        entry.digest.raw if entry.digest else None, size, entry.mode, entry.mtime, entry.mtime_ns, flags,
        entry.name, entry.symlink, entry.uid, entry.gid, entry.xattr or None,
    )  # fmt: skip
