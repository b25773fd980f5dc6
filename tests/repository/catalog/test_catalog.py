"""The catalog reader against databases that lie."""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import CatalogError

FILE = DirectoryEntry(b"f", stat.S_IFREG | 0o644, 9, 5, flags=EntryFlag.FILE, digest=Digest.of(b"f"))
ROOT = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5)
    writer.add(b"", ROOT)
    for number in range(200):
        name = b"f%d" % number
        writer.add(b"/" + name, FILE._replace(name=name))
    writer.put_nested(CatalogReference(b"/a", Digest.of(b"1"), 3))
    writer.put_nested(CatalogReference(b"/a/b/c", Digest.of(b"2"), 4))
    writer.finish()
    return tmp_path / "c"


def use(path: Path) -> None:
    """Everything that a reader can ask."""
    catalog = Catalog.open(path, mountpoint=b"")
    try:
        for entry in catalog.listing(b""):
            catalog.chunks(b"/" + entry.name)
            catalog.entry_at(entry.row)
        _ = catalog.nested(), catalog.counters, catalog.revision, catalog.ttl, catalog.max_row
        catalog.nested_for(b"/a/b")
        catalog.group_row(1)
        catalog.path_with(Digest.of(b"f"))
    finally:
        catalog.close()


def test_nested_for_finds_the_deepest(file: Path) -> None:
    catalog = Catalog.open(file, mountpoint=b"")
    found = {path: catalog.nested_for(path) for path in (b"/a", b"/a/b", b"/a/b/c/d", b"/ab", b"")}
    catalog.close()
    assert {path: None if r is None else r.path for path, r in found.items()} == {
        b"/a": b"/a", b"/a/b": b"/a", b"/a/b/c/d": b"/a/b/c", b"/ab": None, b"": None,
    }  # fmt: skip


def test_a_listing_can_be_continued_behind_any_row(tmp_path: Path) -> None:
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5)
    writer.add(b"", ROOT)
    for number in range(50):
        writer.add(b"/%d" % number, ROOT._replace(name=b"%d" % number))
        writer.add(b"/%d/below" % number, ROOT._replace(name=b"below"))
    writer.finish()
    catalog = Catalog.open(tmp_path / "c", mountpoint=b"")
    whole = catalog.listing(b"")
    rows = [entry.row for entry in whole]
    assert len(whole) == 50
    assert rows == sorted(rows)
    for position, row in enumerate(rows):
        assert catalog.listing(b"", after=row, limit=7) == whole[position + 1 : position + 8]
    catalog.close()


def test_a_catalog_bound_elsewhere_is_read_by_its_own_paths(tmp_path: Path) -> None:
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5)
    writer.add(b"", ROOT)
    writer.add(b"/f", FILE)
    writer.put_nested(CatalogReference(b"/n", Digest.of(b"n"), 3))
    writer.finish()
    catalog = Catalog.open(tmp_path / "c", mountpoint=b"/.cvmfs/snapshots/v1")
    assert [entry.name for entry in catalog.listing(b"/.cvmfs/snapshots/v1")] == [b"f"]
    assert catalog.lookup(b"/.cvmfs/snapshots/v1/f") is not None
    assert [reference.path for reference in catalog.nested()] == [b"/.cvmfs/snapshots/v1/n"]
    catalog.close()


def test_a_file_that_makes_sqlite_run_out_of_memory_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Catalog.open(file, mountpoint=b"")) as catalog:
        monkeypatch.setattr(catalog, "_sql", Exhausted())
        with pytest.raises(CatalogError, match="the catalog of / cannot be used: it asks for"):
            catalog.lookup(b"/f7")


class Exhausted:
    """What sqlite3 does about SQLITE_NOMEM, which damaged lengths lead to."""

    def execute(self, *_: object) -> None:
        raise MemoryError

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE catalog SET name = 'a/b' WHERE name = 'f7'",
        "UPDATE catalog SET name = '..' WHERE name = 'f7'",
        "UPDATE catalog SET hash = 'text' WHERE name = 'f7'",
        "UPDATE catalog SET hash = x'00ff' WHERE name = 'f7'",
        "UPDATE catalog SET size = -1 WHERE name = 'f7'",
        "UPDATE catalog SET flags = 4 + (7 << 11) WHERE name = 'f7'",
        "UPDATE nested_catalogs SET sha1 = 'nonsense'",
        "UPDATE nested_catalogs SET sha1 = NULL",
        "UPDATE nested_catalogs SET path = 'no/slash' WHERE path = '/a'",
        "UPDATE properties SET value = '2.0' WHERE key = 'schema'",
        "UPDATE properties SET value = 'x' WHERE key = 'revision'",
        "DROP TABLE nested_catalogs",
        "ALTER TABLE catalog RENAME TO c2; CREATE VIEW catalog AS SELECT * FROM c2",
        "UPDATE catalog SET flags = 4 + 64 WHERE name = 'f7'",
        "UPDATE catalog SET flags = 4 + 64 WHERE name = 'f7'; "
        "INSERT INTO chunks SELECT md5path_1, md5path_2, 5, 5, hash FROM catalog WHERE name = 'f7'",
    ],
)
def test_contradictions_are_refused(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    connection.executescript(statement)
    connection.close()
    with pytest.raises(CatalogError):
        use(file)


@pytest.mark.parametrize(
    "column", ["size", "mode", "mtime", "mtimens", "flags", "hardlinks", "uid", "xattr", "symlink"]
)
@pytest.mark.parametrize("value", ["NULL", "'text'", "x'ff00'", "1.5e300", "-9223372036854775808"])
def test_wrong_types_never_surprise(file: Path, column: str, value: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute(f"UPDATE catalog SET {column} = {value} WHERE name <> ''")
    connection.commit()
    connection.close()
    catalog = Catalog.open(file, mountpoint=b"")
    try:
        use(file)
        entry = catalog.lookup(b"/f7")
    except CatalogError:
        return
    finally:
        catalog.close()
    assert entry is not None
    assert isinstance(entry.mtime, int)
    assert isinstance(entry.size, int)
    assert isinstance(entry.xattr, bytes)


@pytest.mark.parametrize("mountpoint", [b"", b"/m"])
def test_a_file_is_found_by_its_content(tmp_path: Path, mountpoint: bytes) -> None:
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=mountpoint, now=5)
    writer.add(mountpoint, ROOT._replace(name=mountpoint[1:]))
    writer.add(mountpoint + b"/d", ROOT._replace(name=b"d"))
    writer.add(mountpoint + b"/d/\xff", ROOT._replace(name=b"\xff"))
    writer.add(mountpoint + b"/d/\xff/f", FILE)
    writer.finish()
    with closing(Catalog.open(tmp_path / "c", mountpoint=mountpoint)) as catalog:
        assert catalog.path_with(Digest.of(b"f")) == mountpoint + b"/d/\xff/f"
        assert catalog.path_with(Digest.of(b"g")) is None
    # Directories in a circle, each of them many times.
    with closing(sqlite3.connect(tmp_path / "c")) as sql:
        sql.execute("CREATE TABLE copy AS SELECT * FROM catalog")
        sql.execute("DROP TABLE catalog")
        sql.execute("ALTER TABLE copy RENAME TO catalog")
        sql.execute("UPDATE catalog SET (parent_1, parent_2) = (md5path_1, md5path_2) WHERE name = 'd'")
        for _ in range(5):
            sql.execute("INSERT INTO catalog SELECT * FROM catalog")
        sql.commit()
    with closing(Catalog.open(tmp_path / "c", mountpoint=mountpoint)) as catalog:
        assert len(catalog.path_with(Digest.of(b"f")) or b"") < 1000
    with closing(sqlite3.connect(tmp_path / "c")) as sql:
        sql.execute("UPDATE catalog SET name = NULL")
        sql.commit()
    with closing(Catalog.open(tmp_path / "c", mountpoint=mountpoint)) as catalog:
        assert catalog.path_with(Digest.of(b"f")) == mountpoint + b"/"
