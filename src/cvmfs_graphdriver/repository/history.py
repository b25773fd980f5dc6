"""The history database: named tags of revisions (CernVM-FS format reference, section 6.1).

Owns: its tables, the rules of tag names. Must not know: catalogs, storage; it works on a file of the
caller's.
"""

import os
import sqlite3
from collections.abc import Callable
from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.database import (
    check_owner,
    create_database,
    mapped,
    open_immutable,
    open_private,
)
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.manifest import REVISION_LIMIT, SIZE_LIMIT, TIMESTAMP_LIMIT

__all__ = ["TRUNK", "TRUNK_PREVIOUS", "History", "Tag", "check_tag_name"]

TRUNK = "trunk"
TRUNK_PREVIOUS = "trunk-previous"

_TABLES = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));",
    "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,  "
    "CONSTRAINT pk_branch PRIMARY KEY (branch),   FOREIGN KEY (parent) REFERENCES branches (branch),   "
    "CHECK ((branch <> '') OR (parent IS NULL)),   CHECK ((branch = '') OR (parent IS NOT NULL)));",
    "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER,   timestamp INTEGER, channel INTEGER, "
    "description TEXT, size INTEGER,   branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name),   "
    "FOREIGN KEY (branch) REFERENCES branches (branch));",
    "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER,   CONSTRAINT pk_hash PRIMARY KEY (hash));",
)
_NULL = "0" * 40
_WHAT = "the history database"


class Tag(NamedTuple):
    """A named revision: ``timestamp`` in Unix time, ``size`` of its root catalog in bytes."""

    name: str
    root: Digest
    revision: int
    timestamp: int
    description: str = ""
    size: int = 0
    branch: str = ""


def _tag(
    name: str, root: str, revision: int, timestamp: int, description: str, size: int, branch: str
) -> Tag:
    """The tag in a row. Raises FormatError: a number is out of its range."""
    if not (
        0 <= revision <= REVISION_LIMIT and 0 <= timestamp <= TIMESTAMP_LIMIT and 0 <= size <= SIZE_LIMIT
    ):
        raise FormatError(
            f"the tag {name[:80]!r} has revision {revision}, timestamp {timestamp}, size {size}: out of range"
        )
    return Tag(name, Digest.parse(root), revision, timestamp, description, size, branch)


def check_tag_name(name: str) -> None:
    """Raises FormatError: users may not give a tag this name."""
    if not name or any(character.isspace() for character in name) or name in {TRUNK, TRUNK_PREVIOUS}:
        raise FormatError(f"{name!r} cannot name a tag: it is empty, reserved, or contains a space")


class History:
    """An open history database, in a private file, for reading and changing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, fqrn: str) -> Self:
        """A new history with the trunk as its only branch."""
        with mapped(_WHAT):
            connection = create_database(path, _TABLES)
            rows = (("schema", "1.0"), ("schema_revision", "3"), ("fqrn", fqrn))
            connection.executemany("INSERT INTO properties VALUES (?, ?)", rows)
            connection.execute("INSERT INTO branches VALUES ('', NULL, 0)")
        return cls(connection)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, fqrn: str) -> Self:
        """Open an existing one for changing. Raises CatalogError: not a history, or another repository's."""
        return cls._open(open_private, path, fqrn)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, fqrn: str) -> Self:
        """Open an existing one that nobody changes. Raises CatalogError as ``open`` does."""
        return cls._open(open_immutable, path, fqrn)

    @classmethod
    def _open(
        cls, connect: Callable[..., sqlite3.Connection], path: str | os.PathLike[str], fqrn: str
    ) -> Self:
        with mapped(_WHAT):
            connection = connect(path)
            try:
                check_owner(connection, fqrn)
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    def tags(self) -> list[Tag]:
        """All tags, the newest revision first."""
        with mapped(_WHAT):
            # The first histories had no sizes, and those until revision 3 of the schema no branches.
            known = {name for (name,) in self._sql.execute("SELECT name FROM pragma_table_info('tags')")}
            size = "ifnull(CAST(size AS INTEGER), 0)" if "size" in known else "0"
            branch = "ifnull(CAST(branch AS TEXT), '')" if "branch" in known else "''"
            rows = self._sql.execute(
                "SELECT ifnull(CAST(name AS TEXT), ''), ifnull(CAST(hash AS TEXT), ''), "
                "ifnull(CAST(revision AS INTEGER), 0), ifnull(CAST(timestamp AS INTEGER), 0), "
                f"ifnull(CAST(description AS TEXT), ''), {size}, {branch} "
                "FROM tags ORDER BY 3 DESC, 1"
            ).fetchall()
            return [_tag(*row) for row in rows]

    def tag(self, name: str) -> Tag | None:
        """The tag of this name."""
        return next((tag for tag in self.tags() if tag.name == name), None)

    def at(self, timestamp: int) -> Tag | None:
        """The newest revision of the trunk at this Unix time."""
        return next((t for t in self.tags() if not t.branch and t.timestamp <= timestamp), None)

    def put(self, tag: Tag) -> None:
        """Add a tag, or move the one with this name."""
        with mapped(_WHAT):
            self._sql.execute(
                "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
                (tag.name, tag.root.text, tag.revision, tag.timestamp, tag.description, tag.size, tag.branch),
            )

    def remove(self, name: str) -> bool:
        """Remove a tag; returns whether it existed."""
        with mapped(_WHAT):
            return self._sql.execute("DELETE FROM tags WHERE name = ?", (name,)).rowcount > 0

    def finish(self, *, previous: Digest | None) -> None:
        """Write and close, recording ``previous`` as the preceding history object."""
        with mapped(_WHAT):
            text = previous.text if previous else _NULL
            self._sql.execute("INSERT OR REPLACE INTO properties VALUES ('previous_revision', ?)", (text,))
            self._sql.execute("COMMIT")
        self._sql.close()

    def close(self) -> None:
        """Close, discarding changes. Harmless after ``finish``."""
        self._sql.close()
