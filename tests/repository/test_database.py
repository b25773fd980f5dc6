"""How SQLite files are opened: nothing is written into what is not ours, nothing beside it counts."""

import sqlite3
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.database import create_database, mapped, open_immutable, open_private
from cvmfs_graphdriver.repository.errors import CatalogError

TABLE = "CREATE TABLE t (a TEXT)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "odd ?name#%41"
    connection = create_database(path, [TABLE])
    connection.execute("INSERT INTO t VALUES ('one')")
    connection.execute("COMMIT")
    connection.close()
    return path


def test_immutable_is_not_written_and_ignores_what_lies_beside(file: Path) -> None:
    before = file.read_bytes()
    file.with_name(file.name + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\xff" * 600)
    file.chmod(0o444)
    connection = open_immutable(file)
    assert connection.execute("SELECT a FROM t").fetchall() == [("one",)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM t")
    connection.close()
    assert file.read_bytes() == before


def test_private_changes_in_place(file: Path) -> None:
    connection = open_private(file)
    connection.execute("UPDATE t SET a = 'two'")
    connection.execute("COMMIT")
    connection.close()
    assert b"two" in file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("how", [open_immutable, open_private])
def test_opening_never_makes_a_file(how, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(sqlite3.OperationalError):
        how(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_creating_never_takes_over_a_file(file: Path) -> None:
    with pytest.raises(FileExistsError):
        create_database(file, [TABLE])


def test_big_values_are_refused(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("INSERT INTO t VALUES (zeroblob(2000000))")
    connection.commit()
    connection.close()
    connection = open_immutable(file)
    with pytest.raises(sqlite3.DataError):
        connection.execute("SELECT a FROM t").fetchall()
    connection.close()


def test_foreign_errors_become_ours() -> None:
    border = mapped("the thing")
    for error in (sqlite3.DatabaseError("broken"), OverflowError("big"), FileExistsError("there")):
        with pytest.raises(CatalogError, match="the thing cannot be used: ") as caught, border:
            raise error
        assert caught.value.__cause__ is error
    with pytest.raises(KeyError), border:
        raise KeyError
