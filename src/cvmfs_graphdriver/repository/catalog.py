"""Reading a catalog: one SQLite file of entries (CernVM-FS format reference, sections 3 and 4.1).

Owns: the way from a path to its entry, its chunks, its listing, inside one catalog. Must not know: where
the file came from (the caller has verified its digest), other catalogs, inodes.

A catalog knows paths only by their MD5. One that is mounted elsewhere than where it was made (a bind
mountpoint: an old root below ``/.cvmfs/snapshots``) has keys of its own paths, so paths are translated
between ``mountpoint`` and ``root_prefix``.
"""

import os
import sqlite3
import urllib.parse
from typing import Self

from cvmfs_graphdriver.repository.catalog_schema import columns, entry_of, mapped
from cvmfs_graphdriver.repository.counters import Counters
from cvmfs_graphdriver.repository.digest import Digest, PathKey
from cvmfs_graphdriver.repository.entry import CatalogReference, Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.errors import CatalogError

__all__ = ["Catalog"]

_HIDDEN = EntryFlag.HIDDEN.value
_REQUIRED = {"catalog", "chunks", "nested_catalogs", "properties", "statistics"}


class Catalog:
    """An open catalog, read only; safe for any number of threads."""

    def __init__(self, connection: sqlite3.Connection, mountpoint: bytes, what: str) -> None:
        self._sql = connection
        self._what = what
        self.mountpoint = mountpoint
        tables = {
            bytes(name).decode("utf-8", "replace")
            for name, text in connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
            )
            if text
        }
        missing = _REQUIRED - tables - {"chunks", "statistics"}
        if missing:
            raise CatalogError(f"{what} is no catalog: it has no table {min(missing)!r}")
        self._tables = tables
        self.properties: dict[str, str] = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for key, value in connection.execute(
                "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM properties"
            )
            if key is not None and value is not None
        }
        schema = self._number("schema", 1.0)
        if schema < 2.4 - 1e-6 or schema > 2.5 + 1e-6:
            raise CatalogError(f"{what} has schema {schema}, and only 2.4 and 2.5 can be read")
        selected = columns(schema, int(self._number("schema_revision", 0)))
        self._by_key = f"SELECT {selected} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
        self._by_parent = (
            f"SELECT {selected} FROM catalog WHERE parent_1 = ? AND parent_2 = ? AND (flags & {_HIDDEN}) = 0"
        )
        self._by_row = f"SELECT {selected} FROM catalog WHERE rowid = ?"
        self.root_prefix: bytes = self.properties.get("root_prefix", "").encode("utf-8", "replace")
        self._groups: dict[int, int] | None = None
        self._references: tuple[CatalogReference, ...] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mountpoint: bytes) -> Self:
        """Open the database file at ``path``, which nobody may change, as mounted at ``mountpoint``.

        Raises CatalogError: not a database, not a catalog, or one of a schema that cannot be read.
        """
        what = f"the catalog of {mountpoint.decode('utf-8', 'replace') or '/'}"
        address = f"file:{urllib.parse.quote(os.fspath(path))}?mode=ro&immutable=1"
        with mapped(what):
            connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            try:
                connection.text_factory = bytes
                connection.execute("PRAGMA trusted_schema = OFF")
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
        with mapped(self._what):
            row = self._sql.execute(self._by_key, self.key_of(path)).fetchone()
            return None if row is None else entry_of(row)

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
        with mapped(self._what):
            row = self._sql.execute(statement, arguments).fetchone()
            if row is None:
                raise CatalogError(f"{self._what} has no entry {arguments}")
            return entry_of(row), PathKey(row[-2], row[-1])

    # What is in a directory or file

    def listing(self, path: bytes) -> list[DirectoryEntry]:
        """The entries of a directory, in no particular order, without hidden ones."""
        with mapped(self._what):
            rows = self._sql.execute(self._by_parent, self.key_of(path)).fetchall()
            # A root directory's own parent key may be its own key in repositories of old writers.
            return [entry for row in rows if (entry := entry_of(row)).name]

    def chunks(self, path: bytes) -> tuple[Chunk, ...]:
        """The chunks of a chunked file by offset. Raises CatalogError: they leave a gap or overlap."""
        entry = self.lookup(path)
        if entry is None or "chunks" not in self._tables:
            return ()
        with mapped(self._what):
            rows = self._sql.execute(
                "SELECT CAST(offset AS INTEGER), CAST(size AS INTEGER), CAST(hash AS BLOB) FROM chunks "
                "WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY offset",
                self.key_of(path),
            ).fetchall()
            chunks = tuple(
                Chunk(offset or 0, size or 0, Digest(entry.hash_algorithm, raw or b""))
                for offset, size, raw in rows
            )
        end = 0
        for chunk in chunks:
            if chunk.offset != end or chunk.size <= 0:
                raise CatalogError(f"the chunks of {path!r} do not follow one another at offset {end}")
            end += chunk.size
        if chunks and end != entry.size:
            raise CatalogError(f"the chunks of {path!r} have {end} bytes together, the file has {entry.size}")
        return chunks

    # Other catalogs

    def nested(self) -> tuple[CatalogReference, ...]:
        """All nested catalogs, bind mountpoints included, at the paths where they appear."""
        if self._references is None:
            references = []
            with mapped(self._what):
                for table in ("nested_catalogs", "bind_mountpoints"):
                    if table in self._tables:
                        references += self._references_of(table)
            self._references = tuple(references)
        return self._references

    def nested_for(self, path: bytes) -> CatalogReference | None:
        """The nested catalog whose mountpoint is ``path`` or the deepest directory above it that is one."""
        best = None
        for reference in self.nested():
            at = reference.path
            if (path == at or path.startswith(at + b"/")) and (best is None or len(at) > len(best.path)):
                best = reference
        return best

    def _references_of(self, table: str) -> list[CatalogReference]:
        rows = self._sql.execute(
            f"SELECT CAST(path AS BLOB), CAST(sha1 AS BLOB), ifnull(CAST(size AS INTEGER), 0) FROM {table}"
        )
        found = []
        for path, text, size in rows:
            if not path or not text or not path.startswith(self.root_prefix + b"/"):
                raise CatalogError(f"{self._what} refers to a catalog at {path!r}, which is not below it")
            at = self.mountpoint + path[len(self.root_prefix) :]
            found.append(CatalogReference(at, Digest.parse(text.decode("ascii")), max(size, 0)))
        return found

    # Of the catalog as a whole

    @property
    def revision(self) -> int:
        return int(self._number("revision", 0))

    @property
    def ttl(self) -> int | None:
        """Seconds after which to look for a new revision; None if the catalog does not say."""
        return int(self._number("TTL", 0)) if "TTL" in self.properties else None

    @property
    def counters(self) -> Counters:
        """The statistics, all 0 where the catalog has none."""
        if "statistics" not in self._tables:
            return Counters.parse({})
        with mapped(self._what):
            rows = self._sql.execute(
                "SELECT CAST(counter AS BLOB), ifnull(CAST(value AS INTEGER), 0) FROM statistics"
            ).fetchall()
        return Counters.parse({(name or b"").decode("utf-8", "replace"): value for name, value in rows})

    @property
    def max_row(self) -> int:
        """The greatest row number."""
        with mapped(self._what):
            (number,) = self._sql.execute("SELECT ifnull(max(rowid), 0) FROM catalog").fetchone()
            return int(number)

    def group_row(self, group: int) -> int:
        """The least row of a hard-link group; 0 if there is no such group."""
        if self._groups is None:
            with mapped(self._what):
                rows = self._sql.execute(
                    "SELECT (hardlinks >> 32) & 4294967295, min(rowid) FROM catalog "
                    "WHERE hardlinks >= 4294967296 GROUP BY 1"
                ).fetchall()
            self._groups = dict(rows)
        return self._groups.get(group, 0)

    def _number(self, key: str, default: float) -> float:
        text = self.properties.get(key)
        if text is None:
            return default
        try:
            return float(text) if key == "schema" else int(text)
        except ValueError as error:
            raise CatalogError(f"{self._what} has the property {key} = {text[:40]!r}, no number") from error
