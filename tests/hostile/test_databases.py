"""Catalogs and histories whose publisher is the attacker: right digests, and SQLite files that are traps.

Each trap is refused as a broken catalog at once, with little memory, before anything is asked of it.
"""

import sqlite3
import stat
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository import database
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.errors import CatalogError
from cvmfs_graphdriver.repository.history import History

FQRN = "hostile.example.org"
_PAGE = 1024
_SECONDS = 2.0
_BYTES = 50 << 20
_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_INTERIOR = 5
_DIRECTORY = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY, linkcount=2)


def new_catalog(path: Path, entries: int = 0) -> None:
    with CatalogWriter.create(path, mountpoint=b"", now=5) as writer:
        writer.add(b"", _DIRECTORY)
        for number in range(entries):
            name = b"directory%d" % number
            writer.add(b"/" + name, _DIRECTORY._replace(name=name))
        writer.finish()


def new_history(path: Path) -> None:
    History.create(path, fqrn=FQRN).finish(previous=None)


def run(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def root_page(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    connection.close()
    return int(page)


def name_one_page_often(path: Path, table: str) -> None:
    """Let every interior page of a table's tree name one page, as often as it has room for."""
    content = bytearray(path.read_bytes())
    first = root_page(path, table)

    def interior(page: int) -> bool:
        return content[(page - 1) * _PAGE] == _INTERIOR

    assert interior(first), "the table is too small to have a tree"
    base = (first - 1) * _PAGE
    (cells,) = struct.unpack_from(">H", content, base + 3)
    (leaf,) = struct.unpack_from(">I", content, base + 8)
    for number in range(cells):
        (offset,) = struct.unpack_from(">H", content, base + 12 + 2 * number)
        struct.pack_into(">I", content, base + offset, leaf)
    path.write_bytes(content)


def share_an_overflow_chain(path: Path) -> None:
    """Two rows of ``properties`` whose long values lie in the same pages."""
    in_page = (_PAGE - 12) * 32 // 255 - 23  # fileformat2.html, "B-tree Cell Format": M
    payload = in_page + 19 * (_PAGE - 4) + 900  # too much for one page more, so M bytes are in the cell
    value = payload - 5 - len("first")  # a header of five bytes, and the key
    run(
        path,
        *(
            f"INSERT INTO properties VALUES ('{key}', printf('%.{value}c', 'x'))"
            for key in ("first", "other")
        ),
    )
    content = bytearray(path.read_bytes())
    chains = []
    for key in (b"first", b"other"):
        at = content.index(key + b"xxxx") - 5 + in_page
        chains.append(at)
    content[chains[1] : chains[1] + 4] = content[chains[0] : chains[0] + 4]
    path.write_bytes(content)
    with sqlite3.connect(path) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM properties WHERE length(value) > 20000")
    assert rows == 2


def _view(table: str, columns: str) -> Callable[[Path], None]:
    return lambda path: run(
        path, f"DROP TABLE {table}", f"CREATE VIEW {table} AS {_ENDLESS} SELECT {columns} FROM n"
    )


def _generated(path: Path) -> None:
    run(
        path,
        "DROP TABLE properties",
        "CREATE TABLE properties (key TEXT, value TEXT AS (hex(zeroblob(400000))))",
        *("INSERT INTO properties (key) VALUES ('key')" for _ in range(2000)),
    )


def _virtual(path: Path) -> None:
    run(path, "DROP TABLE statistics", "CREATE VIRTUAL TABLE statistics USING fts5(counter, value)")


def _trigger(path: Path) -> None:
    run(path, "CREATE TRIGGER t AFTER INSERT ON properties BEGIN DELETE FROM properties; END")


def _many_tables(path: Path) -> None:
    run(path, *(f"CREATE TABLE t{number} (a)" for number in range(200)))


def _tree_of(table: str, insert: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        run(path, "BEGIN", *(insert.format(number) for number in range(3000)), "COMMIT")
        name_one_page_often(path, table)

    return spoil


CATALOGS: dict[str, Callable[[Path], None]] = {
    "statistics names a page often": _tree_of("statistics", "INSERT INTO statistics VALUES ('c{0}', {0})"),
    "properties names a page often": _tree_of("properties", "INSERT INTO properties VALUES ('p{}', 'value')"),
    "rows share an overflow chain": share_an_overflow_chain,
    "properties are a view": _view("properties", "'key' || i AS key, hex(zeroblob(1000)) AS value"),
    "statistics are a view": _view("statistics", "'c' || i AS counter, i AS value"),
    "generated columns": _generated,
    "a virtual table": _virtual,
    "a trigger": _trigger,
    "many tables": _many_tables,
}
HISTORIES: dict[str, Callable[[Path], None]] = {
    "tags are a view": _view(
        "tags",
        "'t' || i AS name, hex(zeroblob(20)) AS hash, i AS revision, i AS timestamp, '' AS description",
    ),
    "properties are a view": _view("properties", f"'fqrn' AS key, '{FQRN}' AS value"),
    "generated columns": _generated,
    "properties name a page often": _tree_of("properties", "INSERT INTO properties VALUES ('p{}', 'value')"),
}


def refuse(action: Callable[[], object]) -> None:
    """It ends by CatalogError, soon and with little memory."""
    tracemalloc.start()
    begin = time.monotonic()
    try:
        with pytest.raises(CatalogError):
            action()
        assert time.monotonic() - begin < _SECONDS
        assert tracemalloc.get_traced_memory()[1] < _BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("trap", CATALOGS)
def test_catalogs(trap: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    new_catalog(path)
    Catalog.open(path, mountpoint=b"").close()
    CATALOGS[trap](path)
    refuse(lambda: Catalog.open(path, mountpoint=b""))
    refuse(lambda: CatalogWriter.open(path, mountpoint=b""))


@pytest.mark.parametrize("trap", HISTORIES)
def test_histories(trap: str, tmp_path: Path) -> None:
    path = tmp_path / "history"
    new_history(path)
    History.read(path, fqrn=FQRN).close()
    HISTORIES[trap](path)
    refuse(lambda: History.read(path, fqrn=FQRN))
    refuse(lambda: History.open(path, fqrn=FQRN))


def test_a_statement_has_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a sound file still make a statement long: it ends."""
    path = tmp_path / "catalog"
    new_catalog(path, 100)
    monkeypatch.setattr(database, "_LEAST_INSTRUCTIONS", 1_000_000)
    connection = database.open_immutable(path)
    statement = "SELECT count(*) FROM catalog a, catalog b, catalog c, catalog d"
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        connection.execute(statement).fetchall()
    assert connection.execute("SELECT count(*) FROM catalog").fetchall() == [(101,)]
    connection.close()
