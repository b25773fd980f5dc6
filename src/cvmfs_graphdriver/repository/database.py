"""SQLite files as the format uses them: catalogs, histories and reflogs (format reference, sections 3 and 6).

Owns: making such a file, opening one to change it, opening one that is not to be believed, and turning what
SQLite says about a broken one into our error. Must not know: tables, but for ``properties``, which each has.

A file that came from a server has the right digest, so its publisher made it; that makes it no friend. It
is opened immutable (no locks, no journal that happens to lie beside it, nothing is ever written), no SQL
of its schema is trusted, and no value in it may be big. It is read without mmap, since a cache file that is
truncated underneath must give an error and not a SIGBUS.
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

_VALUE_LIMIT: Final = 1 << 20
"""Most bytes of a value or a row; the biggest meaningful one is 130 kB."""

# A length that damage has made huge ends in a MemoryError.
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

    The connection may be used by any thread, but by one at a time. Raises sqlite3.Error.
    """
    return _connect(path, "mode=ro&immutable=1")


def open_private(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open the existing file at ``path``, which only the caller uses, and begin a transaction.

    Raises sqlite3.Error.
    """
    connection = _connect(path, "mode=rw")
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
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: sqlite3.Connection) -> None:
    """The file has no value until it is finished and hashed, so it needs neither journal nor fsync."""
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
    except BaseException:
        connection.close()
        raise
