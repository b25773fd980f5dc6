"""The history database: the real server's, ours like it, and broken ones."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError
from cvmfs_graphdriver.repository.history import History, Tag, check_tag_name
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter
from tests.support.fixtures import NAMES, UnpackedRepository, unpack
from tests.support.project import FIXTURES

FQRN = "x.example.org"
TAGS = [
    Tag("v1", Digest.of(b"1"), 1, 100, "first", 4096),
    Tag("v2", Digest.of(b"2", Algorithm.SHAKE128), 2, 200, "zwölf", 2**40),
    Tag("v3", Digest.of(b"3"), 3, 300, size=1),
    Tag("side", Digest.of(b"4"), 4, 250, branch="b"),
]


def history_of(published: UnpackedRepository, where: Path) -> tuple[Manifest, Path]:
    manifest = Manifest.parse(Letter.parse(published.stored(".cvmfspublished")).body)
    assert manifest.history is not None
    file = where / "history"
    file.write_bytes(published.content(ObjectName(manifest.history, Suffix.HISTORY)))
    return manifest, file


def everything(file: Path) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        tables = [connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names]
        pragmas = [connection.execute(f"PRAGMA {name}").fetchall() for name in ("page_size", "encoding")]
        schema = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY 1").fetchall()
        return [schema, pragmas, dict(zip(names, tables, strict=True))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    history = History.create(tmp_path / "h", fqrn=FQRN)
    for tag in TAGS[:3]:
        history.put(tag)
    history.finish(previous=Digest.of(b"older"))
    return tmp_path / "h"


@pytest.mark.parametrize("name", NAMES)
def test_rewriting_a_real_history_gives_the_same_database(name: str, tmp_path: Path) -> None:
    manifest, theirs = history_of(unpack(name, tmp_path / "fixture"), tmp_path)
    with closing(History.read(theirs, fqrn=manifest.fqrn)) as history:
        tags = history.tags()
        trunk = history.tag("trunk")
    assert trunk is not None
    assert (trunk.root, trunk.revision, trunk.size) == (manifest.root, manifest.revision, manifest.root_size)
    ours = History.create(tmp_path / "ours", fqrn=manifest.fqrn)
    for tag in tags:
        ours.put(tag)
    with closing(sqlite3.connect(theirs)) as connection:
        said = connection.execute("SELECT value FROM properties WHERE key = 'previous_revision'").fetchone()
    ours.finish(previous=Digest.parse(said[0]) if said else None)
    assert everything(tmp_path / "ours") == everything(theirs)


def test_tags_of_the_kitchen_are_those_that_the_server_listed(tmp_path: Path) -> None:
    manifest, theirs = history_of(unpack("kitchen-sha1", tmp_path / "fixture"), tmp_path)
    listed = (FIXTURES / "kitchen-sha1" / "tags.txt").read_text()
    with closing(History.read(theirs, fqrn=manifest.fqrn)) as history:
        tags = history.tags()
        assert [tag.revision for tag in tags] == sorted((tag.revision for tag in tags), reverse=True)
        assert {"v1", "v2", "v3", "base", "trunk", "trunk-previous"} <= {tag.name for tag in tags}
        assert all(tag.name in listed and tag.root.text in listed for tag in tags)


def test_changing_a_history(file: Path) -> None:
    with closing(History.open(file, fqrn=FQRN)) as history:
        history.put(Tag("v3", Digest.of(b"new"), 5, 500))
        assert history.remove("v1")
        assert not history.remove("v1")
        history.finish(previous=None)
    with closing(History.read(file, fqrn=FQRN)) as history:
        assert [(tag.name, tag.revision) for tag in history.tags()] == [("v3", 5), ("v2", 2)]
        assert history.tag("v2") == TAGS[1]
        assert history.tag("v1") is None


def test_closing_forgets_changes(file: Path) -> None:
    before = file.read_bytes()
    with closing(History.open(file, fqrn=FQRN)) as history:
        history.remove("v1")
    assert file.read_bytes() == before


def test_the_revision_of_a_date_is_the_trunks(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO branches VALUES ('b', '', 3)")
        connection.commit()
    with closing(History.open(file, fqrn=FQRN)) as history:
        history.put(TAGS[3])
        found = {at: history.at(at) for at in (99, 100, 299, 300, 10**12)}
    names = {at: tag and tag.name for at, tag in found.items()}
    assert names == {99: None, 100: "v1", 299: "v2", 300: "v3", 10**12: "v3"}


def test_another_repositorys_is_refused(file: Path) -> None:
    for opened in (History.open, History.read):
        with pytest.raises(CatalogError, match=r"belongs to 'x\.example\.org', not to other\.org"):
            opened(file, fqrn="other.org")
    with pytest.raises(CatalogError):
        History.open(file.parent / "absent", fqrn=FQRN)
    assert not (file.parent / "absent").exists()


def test_old_histories_without_sizes_and_branches_are_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old")) as connection:
        connection.executescript(
            "CREATE TABLE properties (key TEXT PRIMARY KEY, value TEXT);"
            "CREATE TABLE tags (name TEXT PRIMARY KEY, hash TEXT, revision INTEGER, timestamp INTEGER,"
            " channel INTEGER, description TEXT);"
            f"INSERT INTO properties VALUES ('schema', '1.0'), ('fqrn', '{FQRN}');"
            f"INSERT INTO tags VALUES ('v1', '{Digest.of(b'1')}', 1, 100, 64, NULL)"
        )
    with closing(History.read(tmp_path / "old", fqrn=FQRN)) as history:
        assert history.tags() == [Tag("v1", Digest.of(b"1"), 1, 100)]


@pytest.mark.parametrize("name", ["", "trunk", "trunk-previous", "a b", "a\tb", "a\n"])
def test_names_that_no_tag_may_have(name: str) -> None:
    with pytest.raises(FormatError, match="cannot name a tag"):
        check_tag_name(name)
    check_tag_name("v1.2-ä_generic")
