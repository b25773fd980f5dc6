"""The ledger of a cache: which objects it holds, their sizes, and the order in which they were used.

Owns: the database ``cachedb`` (CernVM-FS format reference, section 9.2), with one more table than the
reference client's: a checksum of each object's content, because the digest is that of the compressed bytes.
Must not know: when objects are evicted. Several processes may have the same ledger open.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["Kind", "Ledger", "Record"]

_TABLES = """
CREATE TABLE IF NOT EXISTS cache_catalog (
    sha1 TEXT, size INTEGER, acseq INTEGER, path TEXT, type INTEGER, pinned INTEGER,
    CONSTRAINT pk_cache_catalog PRIMARY KEY (sha1));
CREATE UNIQUE INDEX IF NOT EXISTS idx_cache_catalog_acseq ON cache_catalog (acseq);
CREATE TABLE IF NOT EXISTS cache_checksum (sha1 TEXT, crc32 INTEGER,
    CONSTRAINT pk_cache_checksum PRIMARY KEY (sha1));
CREATE TABLE IF NOT EXISTS properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
INSERT OR IGNORE INTO properties VALUES ('schema', '1.0');
"""
_VOLATILE = -(2**63)
"""Added to the sequence numbers of volatile objects, which sorts them before all others."""


_ENTER = (
    "INSERT INTO cache_catalog VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (sha1) DO UPDATE SET "
    "size = excluded.size, acseq = excluded.acseq, path = excluded.path, type = excluded.type"
)


class Kind(IntEnum):
    """The kind of an object: column ``type``."""

    REGULAR = 0
    CATALOG = 1


class Record(NamedTuple):
    """One object. ``digest`` is its name in the cache; ``size`` in bytes; ``sequence`` grows with each use.

    ``path`` says what the object is for; ``pinned`` objects are never evicted; ``crc32`` is that of the
    content, -1 if unknown.
    """

    digest: str
    size: int
    sequence: int = 0
    path: str = ""
    kind: Kind = Kind.REGULAR
    pinned: bool = False
    crc32: int = -1
    volatile: bool = False


class Ledger:
    """An open ledger; safe for any number of threads. All methods raise CacheError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._mapped():
            self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            try:
                self._sql.execute("PRAGMA journal_mode = WAL")
                tables = self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                self.is_new = tables == 0
                """Whether it did not exist before."""
                self._sql.execute("PRAGMA synchronous = OFF")
                self._sql.executescript(_TABLES)
            except BaseException:
                self._sql.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._sql.close()

    def add(self, records: Iterable[Record]) -> None:
        """Enter objects, or replace what was known about them; pins are kept."""
        records = tuple(records)
        with self._transaction() as sql:
            sql.execute("SAVEPOINT quick")
            try:
                sql.executemany(_ENTER, [_row(record, _number(record)) for record in records])
            except sqlite3.IntegrityError:  # a sequence number is in use, which hardly ever happens
                sql.execute("ROLLBACK TO quick")
                for record in records:
                    number = _stored(sql, record.sequence, volatile=record.volatile)
                    sql.execute(_ENTER, _row(record, number))
            sql.executemany(
                "INSERT OR REPLACE INTO cache_checksum VALUES (?, ?)",
                [(record.digest, record.crc32) for record in records if record.crc32 >= 0],
            )

    def touch(self, uses: Iterable[tuple[str, int]]) -> None:
        """Note uses of objects, each with its digest and a sequence number."""
        with self._transaction() as sql:
            for digest, sequence in uses:
                row = sql.execute("SELECT acseq FROM cache_catalog WHERE sha1 = ?", (digest,)).fetchone()
                if row is not None:
                    number = _stored(sql, sequence, volatile=row[0] < 0)
                    sql.execute("UPDATE cache_catalog SET acseq = ? WHERE sha1 = ?", (number, digest))

    def remove(self, digests: Iterable[str]) -> None:
        """Delete objects."""
        rows = [(digest,) for digest in digests]
        with self._transaction() as sql:
            sql.executemany("DELETE FROM cache_catalog WHERE sha1 = ?", rows)
            sql.executemany("DELETE FROM cache_checksum WHERE sha1 = ?", rows)

    def pin(self, digest: str, *, pinned: bool = True) -> bool:
        """Pin or unpin an object; says whether it is there."""
        with self._transaction() as sql:
            found = sql.execute("UPDATE cache_catalog SET pinned = ? WHERE sha1 = ?", (pinned, digest))
            return found.rowcount > 0

    def used(self) -> tuple[int, int]:
        """Bytes in all objects, and in the pinned ones."""
        with self._transaction() as sql:
            row = sql.execute(
                "SELECT ifnull(sum(size), 0), ifnull(sum(size * (pinned > 0)), 0) FROM cache_catalog"
            ).fetchone()
            return int(row[0]), int(row[1])

    def verified(self, digest: str) -> tuple[int, int] | None:
        """Size and CRC-32 of an object as it was stored and verified; None if they are unknown."""
        with self._transaction() as sql:
            row = sql.execute(
                "SELECT size, crc32 FROM cache_catalog JOIN cache_checksum USING (sha1) WHERE sha1 = ?",
                (digest,),
            ).fetchone()
        return None if row is None else (int(row[0]), int(row[1]))

    def records(self) -> list[Record]:
        """All objects, the least recently used first."""
        with self._transaction() as sql:
            rows = sql.execute(
                "SELECT c.sha1, size, acseq, ifnull(path, ''), type, pinned, ifnull(crc32, -1) "
                "FROM cache_catalog AS c LEFT JOIN cache_checksum USING (sha1) ORDER BY acseq"
            ).fetchall()
        return [
            Record(digest, size, sequence, path, Kind(bool(kind)), bool(pinned), crc32, sequence < 0)
            for digest, size, sequence, path, kind, pinned, crc32 in rows
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._mapped():
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield self._sql
            except BaseException:
                self._sql.execute("ROLLBACK")
                raise
            self._sql.execute("COMMIT")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CacheError(f"cannot use the cache's database {self._path}: {error}") from error


def _stored(sql: sqlite3.Connection, sequence: int, *, volatile: bool) -> int:
    """The next free number from ``sequence`` on, in the form that the database has."""
    number = sequence + _VOLATILE if volatile else sequence
    while sql.execute("SELECT 1 FROM cache_catalog WHERE acseq = ?", (number,)).fetchone():
        number += 1
    return number


def _number(record: Record) -> int:
    return record.sequence + _VOLATILE if record.volatile else record.sequence


def _row(record: Record, number: int) -> tuple[str, int, int, str, int, bool]:
    return record.digest, record.size, number, record.path, record.kind, record.pinned
