"""SQLite files as the format uses them: catalogs, histories and reflogs (format reference, sections 3 and 6).

Owns: making such a file, opening one to change it, opening one that is not to be believed, and turning what
SQLite says about a broken one into our error. Must not know: tables, but for ``properties``, which each has.

A file that came from a server has the right digest, so its publisher made it; that makes it no friend. It
is opened immutable (no locks, no journal that happens to lie beside it, nothing is ever written), no SQL
of its schema is trusted, and no value in it may be big. It is read without mmap, since a cache file that is
truncated underneath must give an error and not a SIGBUS.

Before anything is read from such a file it is checked as a whole: its schema has tables and indices and
nothing that computes, and each of its pages is used once (``PRAGMA quick_check``, half a microsecond for a
row). Then all that its tables hold together is no more than the file itself, which bounds what any query can
return; a budget of SQLite's own instructions, in proportion to the file, bounds how long one can take.
"""

import os
import sqlite3
import urllib.parse
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from cvmfs_graphdriver.repository.errors import CatalogError, FormatError

__all__ = ["PAGE_SIZE", "check_owner", "create_database", "mapped", "open_immutable", "open_private"]

PAGE_SIZE: Final = 1024
"""Bytes of a page, as the stock server has it."""

_VALUE_LIMIT: Final = 256 << 10
"""Bytes of a value or a row; the biggest that has a meaning is 130 kB."""

_OBJECT_LIMIT: Final = 100
"""Tables and indices that a database may have; the stock server's have less than 20."""

_HEAP_LIMIT: Final = 512 << 20
"""Bytes that SQLite may use in this process, all databases together."""

_INSTRUCTIONS_A_BYTE: Final = 100
_LEAST_INSTRUCTIONS: Final = 20_000_000
_INSTRUCTIONS_AT_ONCE: Final = 1_000_000
"""How often the budget is looked at: some hundred times a second."""

# A length that damage has made huge ends in a MemoryError: SQLite has no memory for so much.
_BROKEN = (sqlite3.Error, OSError, FormatError, OverflowError, UnicodeDecodeError, MemoryError)


class mapped:  # noqa: N801  a verb, as with contextlib's context managers
    """Turns errors of SQLite and of the format into CatalogError: the database ``what`` is broken.

    For ``with``; may be entered again and again, by any number of threads.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _BROKEN):
            what = "it asks for too much memory" if isinstance(error, MemoryError) else error
            raise CatalogError(f"{self._what} cannot be used: {what}") from error


def open_immutable(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open the file at ``path``, which nobody changes, for reading.

    The connection may be used by any thread, but by one at a time. Raises sqlite3.Error; FormatError: it
    is not sound.
    """
    return _connect_checked(path, "mode=ro&immutable=1")


def open_private(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open the existing file at ``path``, which only the caller uses, and begin a transaction.

    Raises sqlite3.Error; FormatError: it is not sound.
    """
    connection = _connect_checked(path, "mode=rw")
    _begin(connection)
    return connection


def create_database(path: str | os.PathLike[str], tables: Sequence[str]) -> sqlite3.Connection:
    """Make the file at ``path``, begin a transaction and create ``tables`` in it.

    Raises FileExistsError, other OSErrors, sqlite3.Error.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    connection = _connect(path, "mode=rw")
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        _begin(connection)
        for table in tables:
            connection.execute(table)
    except BaseException:
        connection.close()
        raise
    return connection


def check_owner(connection: sqlite3.Connection, fqrn: str) -> None:
    """Raises FormatError: the database belongs to another repository, or names none; sqlite3.Error."""
    row = connection.execute("SELECT CAST(value AS TEXT) FROM properties WHERE key = 'fqrn'").fetchone()
    if row is None or row[0] != fqrn:
        raise FormatError(f"it belongs to {row and row[0]!r}, not to {fqrn}")


def _connect(path: str | os.PathLike[str], how: str) -> sqlite3.Connection:
    address = f"file:{urllib.parse.quote(os.fspath(path))}?{how}"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_LIMIT)
        connection.execute(f"PRAGMA hard_heap_limit = {_HEAP_LIMIT}")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


class _StatementBudget:
    """Ends a statement that takes more instructions than one over a file of this size can need."""

    def __init__(self, size: int) -> None:
        self._most = (size * _INSTRUCTIONS_A_BYTE + _LEAST_INSTRUCTIONS) // _INSTRUCTIONS_AT_ONCE
        self._used = 0

    def begin(self, _: str) -> None:
        """A statement begins."""
        self._used = 0

    def spend(self) -> bool:
        """Called by SQLite; true ends the statement."""
        self._used += 1
        return self._used > self._most


def _connect_checked(path: str | os.PathLike[str], how: str) -> sqlite3.Connection:
    """Open a database made by somebody else. Raises sqlite3.Error, FormatError."""
    connection = _connect(path, how)
    try:
        budget = _StatementBudget(os.stat(path).st_size)
        connection.set_trace_callback(budget.begin)
        connection.set_progress_handler(budget.spend, _INSTRUCTIONS_AT_ONCE)
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Raises FormatError: something in the schema computes, or a page is used twice; sqlite3.Error."""
    objects = connection.execute(
        "SELECT CAST(type AS TEXT), CAST(name AS TEXT), rootpage > 0 FROM sqlite_master LIMIT ?",
        (_OBJECT_LIMIT + 1,),
    ).fetchall()
    if len(objects) > _OBJECT_LIMIT:
        raise FormatError(f"it has more than {_OBJECT_LIMIT} tables and indices")
    for kind, name, stored in objects:
        if kind not in {"table", "index"}:
            raise FormatError(f"it has a {kind} in its schema")
        if kind == "table" and not (stored == 1 and _is_plain(connection, name)):
            raise FormatError(f"its table {name[:80]!r} is virtual or has computed columns")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
    if verdict != "ok":
        raise FormatError(f"it is damaged: {verdict}")


def _is_plain(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table has no columns that are computed."""
    kinds = connection.execute("SELECT hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
    return all(kind == 0 for (kind,) in kinds)


def _begin(connection: sqlite3.Connection) -> None:
    """The file has no value until it is finished and hashed, so it needs neither journal nor fsync."""
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
    except BaseException:
        connection.close()
        raise
