"""The reflog: every root object that was ever published (CernVM-FS format reference, section 6.2).

Owns: its table. Must not know: what is garbage.
"""

import os
import sqlite3
from dataclasses import dataclass
from enum import Enum
from typing import Self

from cvmfs_graphdriver.repository.database import check_owner, create_database, mapped, open_private
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Reference", "ReferenceKind", "Reflog"]

_TABLES = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));",
    "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash));",
)


class ReferenceKind(Enum):
    """The kind of an object in the reflog; the value is the number in its table."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """One object; ``timestamp`` is the Unix time at which it was published."""

    digest: Digest
    kind: ReferenceKind
    timestamp: int


class Reflog:
    """An open reflog, in a private file, for reading and changing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, fqrn: str) -> Self:
        """A new, empty one."""
        with mapped("the reflog"):
            connection = create_database(path, _TABLES)
            rows = (("schema", "1.0"), ("schema_revision", "0"), ("fqrn", fqrn))
            connection.executemany("INSERT INTO properties VALUES (?, ?)", rows)
        return cls(connection)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, fqrn: str) -> Self:
        """Open an existing one. Raises CatalogError: not a reflog, or another repository's."""
        with mapped("the reflog"):
            connection = open_private(path)
            try:
                check_owner(connection, fqrn)
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    def references(self) -> list[Reference]:
        """All references, the oldest first."""
        with mapped("the reflog"):
            rows = self._sql.execute(
                "SELECT ifnull(CAST(hash AS TEXT), ''), CAST(type AS INTEGER), "
                "ifnull(CAST(timestamp AS INTEGER), 0) FROM refs ORDER BY rowid"
            ).fetchall()
            try:
                return [Reference(Digest.parse(text), ReferenceKind(kind), at) for text, kind, at in rows]
            except ValueError as error:
                raise FormatError(f"it contains something that is not a reference: {error}") from error

    def add(self, reference: Reference) -> None:
        """Add a reference; an existing one keeps its time."""
        with mapped("the reflog"):
            self._sql.execute(
                "INSERT OR IGNORE INTO refs VALUES (?, ?, ?)",
                (reference.digest.text, reference.kind.value, reference.timestamp),
            )

    def remove(self, digest: Digest) -> None:
        """Remove a reference if it exists."""
        with mapped("the reflog"):
            self._sql.execute("DELETE FROM refs WHERE hash = ?", (digest.text,))

    def finish(self) -> None:
        """Write and close."""
        with mapped("the reflog"):
            self._sql.execute("COMMIT")
        self._sql.close()

    def close(self) -> None:
        """Close, discarding changes. Harmless after ``finish``."""
        self._sql.close()
