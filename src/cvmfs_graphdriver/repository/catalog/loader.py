"""Filling a catalog from a stream in which later entries replace earlier ones (format reference, 3.4-3.6).

Owns: replacing without looking first, hard-link groups whose size is known only at the end, and counting
what is there in the end. The catalog itself holds everything, so memory does not grow with the stream. Must
not know: where entries come from.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from cvmfs_graphdriver.repository.catalog.counters import Tally
from cvmfs_graphdriver.repository.catalog.entry import Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.schema import INSERT_ENTRY, row_of
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.database import mapped
from cvmfs_graphdriver.repository.digest import PathKey
from cvmfs_graphdriver.repository.errors import CatalogError

__all__ = ["CatalogLoader"]

_BATCH: Final = 4096
_REPLACE_ENTRY: Final = INSERT_ENTRY.replace("INSERT", "INSERT OR REPLACE", 1)
_CHUNKED, _EXTERNAL = EntryFlag.CHUNKED.value, EntryFlag.EXTERNAL.value
_ONE_GROUP: Final = 1 << 32

# How the tallies of ``counters`` are counted by SQLite; 61440 is S_IFMT.
_COUNTS: Final = {
    "regular": "sum(mode & 61440 = 32768)",
    "symlink": "sum(mode & 61440 = 40960)",
    "special": "sum(mode & 61440 NOT IN (32768, 40960, 16384))",
    "dir": "sum(mode & 61440 = 16384)",
    "nested": "(SELECT count(*) FROM nested_catalogs)",
    "chunked": f"sum(flags & {_CHUNKED} > 0)",
    "chunks": "(SELECT count(*) FROM chunks)",
    "file_size": "sum(CASE WHEN mode & 61440 = 32768 THEN size ELSE 0 END)",
    "chunked_size": f"sum(CASE WHEN flags & {_CHUNKED} THEN size ELSE 0 END)",
    "xattr": "sum(xattr IS NOT NULL)",
    "external": f"sum(flags & {_EXTERNAL} > 0)",
    "external_file_size": f"sum(CASE WHEN flags & {_EXTERNAL} THEN size ELSE 0 END)",
}


class CatalogLoader:
    """Fills the catalog of ``writer``, which nobody else may change before ``settle``; for one thread."""

    def __init__(self, writer: CatalogWriter) -> None:
        self._writer = writer
        self._sql = writer._sql
        self._what = writer._what
        self._rows: dict[PathKey, tuple[Any, ...]] = {}
        self._chunks: dict[PathKey, list[tuple[Any, ...]]] = {}
        self._parent = b"", PathKey.of(b"")  # the last one: siblings mostly come one after the other

    def put(self, path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk] = ()) -> None:
        """Put an entry at an absolute path, replacing what is there.

        The link count of an entry with a ``hardlink_group`` is found by ``settle``.
        """
        key = PathKey.of(path)
        parent = path.rpartition(b"/")[0]
        if parent != self._parent[0]:
            self._parent = parent, PathKey.of(parent)
        self._rows[key] = row_of(key, self._parent[1], entry)
        if chunks:
            self._chunks[key] = [(*key, chunk.offset, chunk.size, chunk.digest.raw) for chunk in chunks]
        else:
            self._chunks.pop(key, None)
        if len(self._rows) >= _BATCH:
            self._flush()

    def lookup(self, path: bytes) -> DirectoryEntry | None:
        """The entry at a path at this point."""
        self._flush()
        return self._writer.lookup(path)

    def join(self, path: bytes) -> tuple[DirectoryEntry, Sequence[Chunk]]:
        """The file at a path, as a member of a hard-link group, and its chunks.

        Raises CatalogError: there is no file.
        """
        entry = self.lookup(path)
        if entry is None or entry.is_directory:
            raise CatalogError(f"{self._what} has no file {path!r}")
        if not entry.hardlink_group:
            entry = entry._replace(hardlink_group=self._writer.new_hardlink_group())
            with mapped(self._what):
                self._sql.execute(
                    "UPDATE catalog SET hardlinks = ? WHERE md5path_1 = ? AND md5path_2 = ?",
                    (entry.hardlink_group << 32 | 1, *PathKey.of(path)),
                )
        return entry, self._writer.chunks(path, entry) if entry.is_chunked else ()

    def clear(self, path: bytes) -> None:
        """Remove what is in the directory at ``path``, not what is in directories in it, nor itself."""
        self._flush()
        with mapped(self._what):
            self._sql.execute("DELETE FROM catalog WHERE parent_1 = ? AND parent_2 = ?", PathKey.of(path))

    def settle(self, *, by_directory: bool = False) -> int:
        """Finish: count hard-link groups, drop what belongs to replaced entries, count everything.

        ``by_directory`` makes one group of the members in each directory, as the stock server does.
        Returns how many groups had to be broken up for that.
        """
        self._flush()
        with mapped(self._what):
            self._sql.execute(
                "DELETE FROM chunks WHERE (md5path_1, md5path_2) NOT IN "
                f"(SELECT md5path_1, md5path_2 FROM catalog WHERE flags & {_CHUNKED})"
            )
            broken = self._across_directories() if by_directory else 0
            of_directory = ", parent_1, parent_2" if by_directory else ""
            self._sql.execute(
                f"CREATE TEMP TABLE member AS SELECT rowid AS number, "
                f"dense_rank() OVER (ORDER BY hardlinks >> 32{of_directory}) AS grp, "
                f"count(*) OVER (PARTITION BY hardlinks >> 32{of_directory}) AS names "
                f"FROM catalog WHERE hardlinks >= {_ONE_GROUP}"
            )
            # Groups with several names get the lower numbers, without gaps.
            self._sql.execute(
                "UPDATE catalog SET hardlinks = CASE names WHEN 1 THEN 1 ELSE grp << 32 | names END "
                "FROM (SELECT number, names, dense_rank() OVER (ORDER BY names = 1, grp) AS grp FROM member) "
                "AS settled WHERE settled.number = catalog.rowid"
            )
            self._sql.execute("DROP TABLE member")
            self._count()
        return broken

    def _across_directories(self) -> int:
        (number,) = self._sql.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM catalog WHERE hardlinks >= {_ONE_GROUP} "
            "GROUP BY hardlinks >> 32 HAVING min(parent_1) <> max(parent_1))"
        ).fetchone()
        return int(number)

    def _count(self) -> None:
        names = [field.name for field in fields(Tally)]
        wanted = ", ".join(f"ifnull({_COUNTS[name]}, 0)" for name in names)
        values = self._sql.execute(f"SELECT {wanted} FROM catalog").fetchone()
        for name, value in zip(names, values, strict=True):
            setattr(self._writer.counters.self_, name, value)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        chunks, self._chunks = self._chunks, {}
        with mapped(self._what):
            self._sql.executemany(_REPLACE_ENTRY, rows.values())
            self._sql.executemany("DELETE FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?", chunks)
            self._sql.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", (row for one in chunks.values() for row in one)
            )
