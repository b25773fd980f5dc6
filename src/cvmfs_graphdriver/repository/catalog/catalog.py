"""Reading a catalog: one SQLite file of entries (CernVM-FS format reference, sections 3 and 4.1).

Owns: the way from a path to its entry, its chunks, its listing, inside one catalog. Must not know: where
the file came from (the caller has verified its digest), other catalogs, inodes.

A catalog knows paths only by their MD5. One that is mounted elsewhere than where it was made (a bind
mountpoint: an old root below ``/.cvmfs/snapshots``) has keys of its own paths, so paths are translated
between ``mountpoint`` and ``root_prefix``.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.schema import CHUNK_COLUMNS, Schema, entry_of, number_of
from cvmfs_graphdriver.repository.database import mapped, open_immutable
from cvmfs_graphdriver.repository.digest import Digest, PathKey, Suffix
from cvmfs_graphdriver.repository.errors import CatalogError

if TYPE_CHECKING:
    from cvmfs_graphdriver.repository.catalog.counters import Counters

__all__ = ["Catalog"]

_HIDDEN = EntryFlag.HIDDEN.value
# A root directory's own parent key may be its own key in repositories of old writers.
_NAMED = "length(CAST(name AS BLOB)) > 0"
_ALL = -1
_REQUIRED = ("catalog", "nested_catalogs", "properties")
_GREATEST_ROW = 2**32 - 1
_ONE_GROUP = 1 << 32
_PATH_WITH = """
WITH RECURSIVE up (parent_1, parent_2, path, depth) AS (
    SELECT * FROM (
        SELECT parent_1, parent_2, substr(CAST(name AS BLOB), 1, 255), 0 FROM catalog WHERE hash = ? LIMIT 1
    )
    UNION ALL SELECT c.parent_1, c.parent_2, substr(CAST(c.name AS BLOB), 1, 255) || '/' || up.path, depth + 1
        FROM up JOIN catalog c ON (c.md5path_1, c.md5path_2) = (up.parent_1, up.parent_2)
        WHERE (c.md5path_1, c.md5path_2) != (?, ?)
        LIMIT 100
)
SELECT ifnull(path, '') FROM up ORDER BY depth DESC LIMIT 1
"""
"""Damaged catalogs may have directories in circles, the same key many times, and names of any length."""


class Catalog:
    """An open catalog, read only; safe for any number of threads."""

    def __init__(self, connection: sqlite3.Connection, mountpoint: bytes, what: str) -> None:
        self._sql = connection
        # SQLite would lock by itself, but Python may give one prepared statement to two threads at once.
        self._lock = threading.Lock()
        self._mapped = mapped(what)
        self._what = what
        self.mountpoint = mountpoint
        # A view or a virtual table would run the publisher's code: it counts as absent.
        self._tables = {
            bytes(name)
            for (name,) in self._select(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
            )
        }
        for name in _REQUIRED:
            if name.encode() not in self._tables:
                raise CatalogError(f"{what} is not a catalog: it has no table {name!r}")
        self.properties: dict[str, str] = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "surrogateescape")
            for key, value in self._select(
                "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM properties "
                "WHERE key IS NOT NULL AND value IS NOT NULL"
            )
        }
        self._schema = Schema(self._schema_number(), self._number("schema_revision"))
        if not self._schema.readable:
            raise CatalogError(f"{what} has schema {self._schema.number}, which this version cannot read")
        selected = f"SELECT {self._schema.entry_columns} FROM catalog"
        self._by_key = f"{selected} WHERE md5path_1 = ? AND md5path_2 = ?"
        self._by_parent = (
            f"{selected} WHERE parent_1 = ? AND parent_2 = ? AND rowid > ? AND {_NAMED} "
            "AND (ifnull(flags, 0) & ?) = 0 ORDER BY rowid LIMIT ?"
        )
        self._by_row = f"{selected} WHERE rowid = ?"
        self.root_prefix = self.properties.get("root_prefix", "").encode("utf-8", "surrogateescape")
        self._groups: dict[int, int] | None = None
        self._prefixes: dict[bytes, frozenset[PathKey]] = {}
        self._references: dict[bytes, CatalogReference] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mountpoint: bytes) -> Self:
        """Open the database file at ``path``, which nobody may change, as mounted at ``mountpoint``.

        Raises CatalogError: not a database, not a catalog, or one of a schema that cannot be read.
        """
        what = f"the catalog of {mountpoint.decode('utf-8', 'replace') or '/'}"
        with mapped(what):
            connection = open_immutable(path)
        try:
            connection.text_factory = bytes
            return cls(connection, mountpoint, what)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._sql.close()

    # One entry

    def lookup(self, path: bytes) -> DirectoryEntry | None:
        """The entry at an absolute path in the repository; None if this catalog has none."""
        rows = self._select(self._by_key, self.key_of(path))
        return entry_of(rows[0]) if rows else None

    def by_key(self, key: PathKey) -> tuple[DirectoryEntry, PathKey]:
        """The entry with this key, and its parent's key. Raises CatalogError: there is none."""
        return self._one(self._by_key, key)

    def entry_at(self, row: int) -> tuple[DirectoryEntry, PathKey]:
        """The entry in this row, and its parent's key. Raises CatalogError: there is none."""
        return self._one(self._by_row, (row,))

    def key_of(self, path: bytes) -> PathKey:
        """The key under which this catalog has a path."""
        if self.mountpoint != self.root_prefix:
            path = self.root_prefix + path[len(self.mountpoint) :]
        return PathKey.of(path)

    @property
    def root_key(self) -> PathKey:
        """The key of the catalog's own root entry."""
        return PathKey.of(self.root_prefix)

    def _one(self, statement: str, arguments: tuple[int, ...]) -> tuple[DirectoryEntry, PathKey]:
        rows = self._select(statement, arguments)
        if not rows:
            raise CatalogError(f"{self._what} has no entry {arguments}")
        return entry_of(rows[0]), PathKey(*rows[0][-2:])

    # What is in a directory or file

    def listing(
        self, path: bytes, *, hidden: bool = False, after: int = 0, limit: int = _ALL
    ) -> list[DirectoryEntry]:
        """The entries of a directory in the order of their rows; hidden ones only on request.

        Those behind the row ``after``, and no more than ``limit``: fewer only if there are no more.
        """
        unwanted = 0 if hidden else _HIDDEN
        return [*map(entry_of, self._select(self._by_parent, (*self.key_of(path), after, unwanted, limit)))]

    def directories_with(self, prefix: bytes) -> frozenset[PathKey]:
        """The keys of all directories with a name that starts with ``prefix``; looked up once."""
        known = self._prefixes.get(prefix)
        if known is None:
            rows = self._select(
                "SELECT DISTINCT parent_1, parent_2 FROM catalog "
                "WHERE substr(CAST(name AS BLOB), 1, ?) = CAST(? AS BLOB)",
                (len(prefix), prefix),
            )
            with self._mapped:
                known = self._prefixes[prefix] = frozenset(PathKey(*row) for row in rows)
        return known

    def chunks(self, path: bytes) -> tuple[Chunk, ...]:
        """The chunks of a chunked file in the order of their offsets; none for other entries.

        Raises CatalogError: they leave a gap, overlap, or are not there.
        """
        entry = self.lookup(path)
        if entry is None or not entry.is_chunked:
            return ()
        rows = self._select(
            f"SELECT {CHUNK_COLUMNS} FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY 1",
            self.key_of(path),
        )
        with self._mapped:
            chunks = tuple(Chunk(at, size, Digest(entry.hash_algorithm, raw)) for at, size, raw in rows)
        end = 0
        for chunk in chunks:
            if chunk.offset != end or chunk.size <= 0:
                raise CatalogError(f"the chunks of {path!r} do not follow one another at offset {end}")
            end += chunk.size
        if end != entry.size:
            raise CatalogError(f"the chunks of {path!r} add up to {end} bytes, but the file has {entry.size}")
        return chunks

    def objects(self) -> Iterator[tuple[bytes, Suffix]]:
        """Every object that files and their chunks are stored in, by the digest's bytes and the suffix.

        One that several files share comes several times; nested catalogs are not among them.
        """
        yield from (
            (raw, Suffix.NONE)
            for (raw,) in self._select("SELECT CAST(hash AS BLOB) FROM catalog WHERE hash IS NOT NULL")
        )
        if b"chunks" in self._tables:
            yield from (
                (raw, Suffix.PARTIAL)
                for (raw,) in self._select("SELECT CAST(hash AS BLOB) FROM chunks WHERE hash IS NOT NULL")
            )

    def path_with(self, digest: Digest) -> bytes | None:
        """The path of a file with this content, for messages: every row is read."""
        rows = self._select(_PATH_WITH, (digest.raw, *self.root_key))
        return self.mountpoint + b"/" + rows[0][0] if rows else None

    # Other catalogs

    def nested(self) -> tuple[CatalogReference, ...]:
        """All nested catalogs, bind mountpoints included, at the paths where they appear."""
        return tuple(self._mountpoints().values())

    def nested_for(self, path: bytes) -> CatalogReference | None:
        """The nested catalog whose mountpoint is ``path`` or the deepest directory above it that is one."""
        mountpoints = self._mountpoints()
        while path:
            found = mountpoints.get(path)
            if found is not None:
                return found
            path = path.rpartition(b"/")[0]
        return None

    def _mountpoints(self) -> dict[bytes, CatalogReference]:
        if self._references is None:
            references = {}
            for table in ("nested_catalogs", "bind_mountpoints"):
                if table.encode() in self._tables:
                    for row in self._select(f"SELECT {self._schema.reference_columns} FROM {table}"):
                        reference = self._reference(*row)
                        references[reference.path] = reference
            self._references = references
        return self._references

    def _reference(self, path: bytes, text: bytes, size: int) -> CatalogReference:
        if not path or not text or not path.startswith(self.root_prefix + b"/"):
            raise CatalogError(f"{self._what} refers to a catalog at {path!r}, which is not below it")
        with self._mapped:
            digest = Digest.parse(text.decode("ascii"))
        return CatalogReference(self.mountpoint + path[len(self.root_prefix) :], digest, max(size, 0))

    # Of the catalog as a whole

    @property
    def revision(self) -> int:
        return self._number("revision")

    @property
    def ttl(self) -> int | None:
        """Seconds after which to look for a new revision; None if the catalog does not say."""
        return self._number("TTL") if "TTL" in self.properties else None

    @property
    def counters(self) -> "Counters":
        """The statistics, all 0 where the catalog has none."""
        from cvmfs_graphdriver.repository.catalog.counters import Counters  # a mount needs none

        if b"statistics" not in self._tables:
            return Counters.parse({})
        rows = self._select(
            "SELECT CAST(counter AS BLOB), ifnull(CAST(value AS INTEGER), 0) FROM statistics "
            "WHERE counter IS NOT NULL"
        )
        with self._mapped:
            return Counters.parse({name.decode("utf-8", "replace"): value for name, value in rows})

    @property
    def entries(self) -> int:
        """The number of entries, including its own root directory."""
        ((number,),) = self._select("SELECT count(*) FROM catalog")
        return int(number)

    @property
    def max_row(self) -> int:
        """The greatest row number. Raises CatalogError: rows are not numbered from 1 to 2^32 - 1."""
        ((least, greatest),) = self._select(
            "SELECT ifnull((SELECT min(rowid) FROM catalog), 1), ifnull((SELECT max(rowid) FROM catalog), 0)"
        )
        if (
            not (isinstance(least, int) and isinstance(greatest, int))
            or least < 1
            or greatest > _GREATEST_ROW
        ):
            raise CatalogError(f"{self._what} has row numbers from {least!r} to {greatest!r}")
        return greatest

    def group_row(self, group: int) -> int:
        """The least row of a hard-link group; 0 if there is no such group."""
        if self._groups is None:
            rows = self._select(
                "SELECT CAST(hardlinks AS INTEGER) >> 32, min(rowid) FROM catalog "
                f"WHERE hardlinks >= {_ONE_GROUP} GROUP BY 1"
            )
            self._groups = dict(rows)
        return self._groups.get(group, 0)

    def _select(self, statement: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._mapped, self._lock:
            return self._sql.execute(statement, arguments).fetchall()

    def _number(self, key: str) -> int:
        with self._mapped:
            return number_of(key, self.properties.get(key, "0"))

    def _schema_number(self) -> float:
        """The schema as a number; the oldest catalogs do not state it."""
        text = self.properties.get("schema", "1.0")
        try:
            return float(text)
        except ValueError as error:
            raise CatalogError(f"{self._what} has the schema {text[:40]!r}, which is not a number") from error
