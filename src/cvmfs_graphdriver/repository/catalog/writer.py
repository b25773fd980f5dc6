"""Writing a catalog: schema 2.5 revision 7 to the letter (CernVM-FS format reference, section 3).

Owns: rows, references, properties and counters of one catalog, kept in step. Must not know: objects,
storage, other catalogs but by reference.

Entries go in by ``add`` and are buffered; whatever reads flushes first. The counters are those of the
entries that were added and removed, so they are right when the caller says the truth about chunks.

Clients make inodes of row numbers, and the reference client takes row 1 of the root catalog for the root. So
an entry that changes keeps its row, and the root directory's is 1.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from cvmfs_graphdriver.repository.catalog.counters import Counters, Tally
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, Chunk, DirectoryEntry
from cvmfs_graphdriver.repository.catalog.schema import (
    INSERT_ENTRY,
    LATEST,
    TABLES,
    UPDATE_ENTRY,
    entry_of,
    row_of,
)
from cvmfs_graphdriver.repository.database import create_database, mapped, open_private
from cvmfs_graphdriver.repository.digest import Digest, PathKey
from cvmfs_graphdriver.repository.errors import CatalogError

__all__ = ["CatalogWriter"]

_BATCH = 4096
_WASTE = 5  # a file with more than a fifth of unused pages is repacked
_SCHEMA, _SCHEMA_REVISION = str(LATEST.number), str(LATEST.revision)
_INSERT_CHUNK = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)"
_SELECT = f"SELECT {LATEST.entry_columns} FROM catalog"


class CatalogWriter:
    """A catalog being written, in a file of its own; for one thread."""

    def __init__(self, connection: sqlite3.Connection, path: str, mountpoint: bytes, what: str) -> None:
        connection.text_factory = bytes
        self._sql = connection
        self.path = path
        self.mountpoint = mountpoint
        self._what = what
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: list[tuple[Any, ...]] = []
        self._next_group = 1
        self._opened_at = 0
        self.counters = Counters(Tally(), Tally())

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, mountpoint: bytes, now: int) -> Self:
        """A new, empty catalog with revision 0 at ``now`` (unix time).

        Raises CatalogError: the file exists, or cannot be made.
        """
        what = _name(mountpoint)
        with mapped(what):
            writer = cls(create_database(path, TABLES), os.fspath(path), mountpoint, what)
            writer.set_property("schema", _SCHEMA)
            writer.set_property("schema_revision", _SCHEMA_REVISION)
            if mountpoint:
                writer.set_property("root_prefix", mountpoint)
            writer.set_property("revision", "0")
            writer.set_property("last_modified", str(now))
            writer._write_counters()
        return writer

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mountpoint: bytes) -> Self:
        """An existing catalog of this schema, to be changed in place: a private copy of the caller's.

        Raises CatalogError: no catalog, or one of another schema.
        """
        what = _name(mountpoint)
        with mapped(what):
            writer = cls(open_private(path), os.fspath(path), mountpoint, what)
        try:
            writer._take_up()
        except BaseException:
            writer.abandon()
            raise
        return writer

    def _take_up(self) -> None:
        """Read what an existing catalog contains."""
        schema, revision = self.property("schema"), self.property("schema_revision")
        if (schema, revision) != (_SCHEMA, _SCHEMA_REVISION):
            raise CatalogError(
                f"{self._what} has schema {schema} revision {revision}, and only {_SCHEMA} revision "
                f"{_SCHEMA_REVISION} can be written: migrate it with the stock server first"
            )
        with mapped(self._what):
            rows = self._sql.execute(
                "SELECT CAST(counter AS BLOB), ifnull(CAST(value AS INTEGER), 0) FROM statistics "
                "WHERE counter IS NOT NULL"
            )
            self.counters = Counters.parse({name.decode("utf-8", "replace"): value for name, value in rows})
            ((greatest,),) = self._sql.execute(
                "SELECT ifnull(max(CAST(hardlinks AS INTEGER) >> 32), 0) FROM catalog"
            )
        self._next_group = greatest + 1
        self._opened_at = self._sql.total_changes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    @property
    def is_changed(self) -> bool:
        """Whether entries, references or properties have changed since it was created or opened."""
        return bool(self._rows) or self._sql.total_changes > self._opened_at

    # Entries

    def add(self, path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk] = ()) -> None:
        """Add the entry at an absolute path; its name must be the path's last component."""
        self._rows.append(_row_at(path, entry))
        self._chunks += _chunk_rows(path, chunks)
        self.counters.self_.count(entry, len(chunks))
        if len(self._rows) >= _BATCH:
            self.flush()

    def replace(self, path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk] = ()) -> None:
        """Put an entry in the place and row of the one at ``path``. Raises CatalogError: there is none."""
        self._count_out(path)
        with mapped(self._what):
            self._sql.execute(UPDATE_ENTRY, _row_at(path, entry))
            self._sql.executemany(_INSERT_CHUNK, _chunk_rows(path, chunks))
        self.counters.self_.count(entry, len(chunks))

    def remove(self, path: bytes) -> None:
        """Remove one entry, not what is below it. Raises CatalogError: there is none."""
        self._count_out(path)
        with mapped(self._what):
            self._sql.execute("DELETE FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", PathKey.of(path))

    def _count_out(self, path: bytes) -> None:
        """Forget the chunks of an entry, and that it counted."""
        entry = self.lookup(path)
        if entry is None:
            raise CatalogError(f"{self._what} has no entry {path!r} to replace or remove")
        with mapped(self._what):
            count = self._sql.execute(
                "DELETE FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?", PathKey.of(path)
            ).rowcount
        self.counters.self_.count(entry, count, -1)

    def lookup(self, path: bytes) -> DirectoryEntry | None:
        """The entry at a path, None if there is none."""
        self.flush()
        with mapped(self._what):
            row = self._sql.execute(
                f"{_SELECT} WHERE md5path_1 = ? AND md5path_2 = ?", PathKey.of(path)
            ).fetchone()
            return None if row is None else entry_of(row)

    def listing(self, path: bytes) -> list[DirectoryEntry]:
        """The entries of a directory, hidden ones included."""
        self.flush()
        with mapped(self._what):
            rows = self._sql.execute(
                f"{_SELECT} WHERE parent_1 = ? AND parent_2 = ?", PathKey.of(path)
            ).fetchall()
            return [entry for row in rows if (entry := entry_of(row)).name]

    def chunks(self, path: bytes, entry: DirectoryEntry) -> list[Chunk]:
        """The chunks of the file at ``path``."""
        self.flush()
        with mapped(self._what):
            rows = self._sql.execute(
                "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY offset",
                PathKey.of(path),
            ).fetchall()
            return [Chunk(offset, size, Digest(entry.hash_algorithm, raw)) for offset, size, raw in rows]

    def new_hardlink_group(self) -> int:
        """An unused group number of this catalog."""
        group = self._next_group
        self._next_group += 1
        return group

    # References to other catalogs

    def nested(self) -> list[CatalogReference]:
        """All nested catalogs."""
        with mapped(self._what):
            rows = self._sql.execute(
                "SELECT CAST(path AS BLOB), CAST(sha1 AS BLOB), size FROM nested_catalogs"
            )
            return [
                CatalogReference(path, Digest.parse(text.decode("ascii")), size or 0)
                for path, text, size in rows
            ]

    def put_nested(self, reference: CatalogReference) -> None:
        """Add a nested catalog, or replace the one at its path, and update ``self_nested``."""
        with mapped(self._what):
            known = self._sql.execute(
                "UPDATE nested_catalogs SET sha1 = ?, size = ? WHERE path = CAST(? AS TEXT)",
                (reference.digest.text, reference.size, reference.path),
            ).rowcount
            if not known:
                self._sql.execute(
                    "INSERT INTO nested_catalogs (path, sha1, size) VALUES (CAST(? AS TEXT), ?, ?)",
                    (reference.path, reference.digest.text, reference.size),
                )
                self.counters.self_.nested += 1

    def remove_nested(self, path: bytes) -> None:
        """Remove the nested catalog at ``path``. Raises CatalogError: there is none."""
        with mapped(self._what):
            gone = self._sql.execute(
                "DELETE FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (path,)
            ).rowcount
        if not gone:
            raise CatalogError(f"{self._what} has no nested catalog at {path!r}")
        self.counters.self_.nested -= 1

    # Properties and the end

    def property(self, key: str) -> str | None:
        """A property's value."""
        with mapped(self._what):
            row = self._sql.execute(
                "SELECT CAST(value AS BLOB) FROM properties WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None or row[0] is None else bytes(row[0]).decode("utf-8", "surrogateescape")

    def set_property(self, key: str, value: str | bytes) -> None:
        """Set a property."""
        stored = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        with mapped(self._what):
            known = self._sql.execute(
                "UPDATE properties SET value = CAST(? AS TEXT) WHERE key = ?", (stored, key)
            ).rowcount
            if not known:
                self._sql.execute(
                    "INSERT INTO properties (key, value) VALUES (?, CAST(? AS TEXT))", (key, stored)
                )

    def advance(self, *, now: int, previous: Digest | None, revision: int | None = None) -> None:
        """Make it the revision that follows ``previous`` (None: it is the first to be published)."""
        number = int(self.property("revision") or 0) + 1 if revision is None else revision
        self.set_property("last_modified", str(now))
        self.set_property("revision", str(number))
        self.set_property("previous_revision", previous.text if previous else "0" * 40)

    def flush(self) -> None:
        """Write out what is buffered. Raises CatalogError: two entries have the same path."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        chunks, self._chunks = self._chunks, []
        with mapped(self._what):
            self._sql.executemany(INSERT_ENTRY, rows)
            self._sql.executemany(_INSERT_CHUNK, chunks)

    def finish(self) -> int:
        """Write everything and close; the file is then ready to be compressed. Returns its size in bytes."""
        self.flush()
        with mapped(self._what):
            self._number_root()
            self._write_counters()
            self._sql.execute("COMMIT")
            ((unused,),) = self._sql.execute("PRAGMA freelist_count").fetchall()
            ((pages,),) = self._sql.execute("PRAGMA page_count").fetchall()
            if unused * _WASTE > pages:
                self._sql.execute("VACUUM")
        self._sql.close()
        return os.stat(self.path).st_size

    def abandon(self) -> None:
        """Close without finishing, which makes the file useless. Harmless after ``finish``."""
        self._sql.close()

    def _number_root(self) -> None:
        """Give the root directory row 1; what is there moves to the end."""
        key = PathKey.of(self.mountpoint)
        row = self._sql.execute(
            "SELECT rowid FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", key
        ).fetchone()
        if row not in {None, (1,)}:
            self._sql.execute(
                "UPDATE catalog SET rowid = (SELECT max(rowid) + 1 FROM catalog) WHERE rowid = 1"
            )
            self._sql.execute("UPDATE catalog SET rowid = 1 WHERE md5path_1 = ? AND md5path_2 = ?", key)

    def _write_counters(self) -> None:
        rows: Iterable[tuple[str, int]] = sorted(self.counters.rows().items())
        self._sql.executemany("INSERT OR REPLACE INTO statistics (counter, value) VALUES (?, ?)", rows)


def _row_at(path: bytes, entry: DirectoryEntry) -> tuple[Any, ...]:
    parent = PathKey.of(path.rpartition(b"/")[0]) if path else PathKey(0, 0)
    return row_of(PathKey.of(path), parent, entry)


def _chunk_rows(path: bytes, chunks: Sequence[Chunk]) -> list[tuple[Any, ...]]:
    key = PathKey.of(path)
    return [(*key, chunk.offset, chunk.size, chunk.digest.raw) for chunk in chunks]


def _name(mountpoint: bytes) -> str:
    return f"the catalog of {mountpoint.decode('utf-8', 'replace') or '/'}"
