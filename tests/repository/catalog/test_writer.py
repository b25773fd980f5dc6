"""Catalogs as we write them, against catalogs that the real server wrote: the same rows, the same schema."""

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import CatalogError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter
from tests.support.fixtures import NAMES, UnpackedRepository, unpack

DIRECTORY = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY, linkcount=2)
TABLES = ("catalog", "chunks", "nested_catalogs", "statistics")


def all_catalogs(published: UnpackedRepository, where: Path) -> Iterator[tuple[Path, bytes]]:
    """Every catalog of the current revision that is at its own place, as a file, with its mountpoint."""
    manifest = Manifest.parse(Letter.parse(published.stored(".cvmfspublished")).body)
    pending = [CatalogReference(b"", manifest.root, manifest.root_size)]
    while pending:
        reference = pending.pop()
        file = where / f"{len(list(where.iterdir()))}.db"
        content = published.content(ObjectName(reference.digest, Suffix.CATALOG))
        assert reference.size == len(content)
        file.write_bytes(content)
        catalog = Catalog.open(file, mountpoint=reference.path)
        pending += catalog.nested()
        mine = catalog.root_prefix == reference.path
        catalog.close()
        if mine:
            yield file, reference.path


def rewrite(source: Path, target: Path, mountpoint: bytes) -> None:
    """Read a catalog entry by entry, and write what was read."""
    old = Catalog.open(source, mountpoint=mountpoint)
    new = CatalogWriter.create(target, mountpoint=mountpoint, now=5)

    def walk(path: bytes, entry: DirectoryEntry) -> None:
        new.add(path, entry, old.chunks(path))
        if entry.is_directory and EntryFlag.NESTED_MOUNTPOINT not in entry.flags:
            for child in old.listing(path):
                walk(path + b"/" + child.name, child)

    top = old.lookup(mountpoint)
    assert top is not None
    walk(mountpoint, top)
    hidden = None if mountpoint else old.lookup(b"/.cvmfs")
    if hidden:
        walk(b"/.cvmfs", hidden)
    bound = set(bind_mountpoints(source))
    for reference in old.nested():
        if reference.path not in bound:
            new.put_nested(reference)
    subtree = old.counters.subtree
    for name in ("regular", "dir", "nested", "symlink", "special", "chunked", "chunks", "file_size"):
        setattr(new.counters.subtree, name, getattr(subtree, name))
    for name in ("chunked_size", "xattr", "external", "external_file_size"):
        setattr(new.counters.subtree, name, getattr(subtree, name))
    new.finish()
    old.close()


def bind_mountpoints(file: Path) -> list[bytes]:
    return [bytes(path) for (path,) in rows(file, "SELECT CAST(path AS BLOB) FROM bind_mountpoints")]


def rows(file: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(file)
    connection.text_factory = bytes
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


# The stock server stores 0 as the size of a symlink that came by ``ingest``; its own other writers, and we,
# store the length of the target. Clients compute it.
ORDERED = {
    "catalog": "SELECT md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, "
    "iif(symlink <> '', length(CAST(symlink AS BLOB)), size), mode, mtime, mtimens, flags, name, symlink, "
    "uid, gid, xattr FROM catalog ORDER BY 1, 2",
    "chunks": "SELECT * FROM chunks ORDER BY 1, 2, 3",
    "nested_catalogs": "SELECT path, sha1, size FROM nested_catalogs ORDER BY 1",
    "statistics": "SELECT counter, value FROM statistics ORDER BY 1",
}


@pytest.mark.parametrize("name", NAMES)
def test_rewriting_a_real_catalog_gives_the_same_database(name: str, tmp_path: Path) -> None:
    catalogs = tmp_path / "catalogs"
    catalogs.mkdir()
    count = 0
    for file, mountpoint in all_catalogs(unpack(name, tmp_path / "fixture"), catalogs):
        count += 1
        ours = tmp_path / f"{count}.ours"
        rewrite(file, ours, mountpoint)
        for table in TABLES:
            if table == "statistics" and bind_mountpoints(file):
                continue  # bind mountpoints count as nested catalogs; only the stock server makes them
            assert rows(ours, ORDERED[table]) == rows(file, ORDERED[table]), (mountpoint, table)
        schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
        assert rows(ours, schema) == rows(file, schema)
        for pragma in ("page_size", "encoding", "auto_vacuum", "user_version", "application_id"):
            assert rows(ours, f"PRAGMA {pragma}") == rows(file, f"PRAGMA {pragma}")
        keys = {key for (key,) in rows(file, "SELECT key FROM properties")}
        written = {key for (key,) in rows(ours, "SELECT key FROM properties")}
        assert written == keys - {b"TTL", b"previous_revision", b"volatile"}
    assert count


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    entries = {
        b"/plain": DirectoryEntry(
            b"plain", stat.S_IFREG | 0o6755, 12, 1_700_000_000, 123_456_789, 1000, 2**32 - 1, EntryFlag.FILE,
            2, 1, Digest.of(b"x"), xattr=b"\x01\x01\x01\x01ab",
        ),
        b"/\xff\n odd": DirectoryEntry(
            b"\xff\n odd", stat.S_IFREG | 0o644, 3, -5, None, flags=EntryFlag.FILE,
            digest=Digest.of(b"y", Algorithm.SHAKE128), hash_algorithm=Algorithm.SHAKE128,
        ),
        b"/link": DirectoryEntry(
            b"link", stat.S_IFLNK | 0o777, 5, flags=EntryFlag.FILE | EntryFlag.SYMLINK, symlink=b"\xfe/$(A"
        ),
        b"/null": DirectoryEntry(
            b"null", stat.S_IFCHR | 0o666, flags=EntryFlag.FILE | EntryFlag.SPECIAL, rdev=259
        ),
    }  # fmt: skip
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5)
    writer.add(b"", DIRECTORY)
    for path, entry in entries.items():
        writer.add(path, entry)
    writer.finish()
    catalog = Catalog.open(tmp_path / "c", mountpoint=b"")
    for path, entry in entries.items():
        found = catalog.lookup(path)
        assert found is not None
        assert found._replace(row=0) == entry
        assert catalog.entry_at(found.row) == (found, catalog.root_key)
    assert {e.name for e in catalog.listing(b"")} == {path[1:] for path in entries}
    assert catalog.lookup(b"/absent") is None
    assert catalog.counters.self_.regular == 2
    assert catalog.counters.self_.special == 1
    assert catalog.counters.self_.symlink == 1
    assert catalog.counters.self_.dir == 1
    assert catalog.counters.self_.xattr == 1
    assert catalog.counters.self_.file_size == 15
    catalog.close()


def test_changing_a_catalog_keeps_counters_and_groups(tmp_path: Path) -> None:
    file = DirectoryEntry(b"f", stat.S_IFREG | 0o644, 10, flags=EntryFlag.FILE | EntryFlag.CHUNKED)
    chunks = [Chunk(0, 4, Digest.of(b"1")), Chunk(4, 6, Digest.of(b"2"))]
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=b"/layer", now=5)
    writer.add(b"/layer", DIRECTORY._replace(name=b"layer"))
    writer.add(b"/layer/f", file, chunks)
    assert writer.new_hardlink_group() == 1
    writer.add(b"/layer/g", file._replace(name=b"g", flags=EntryFlag.FILE, hardlink_group=1, linkcount=1))
    writer.put_nested(CatalogReference(b"/layer/n", Digest.of(b"n"), 9))
    writer.finish()
    again = CatalogWriter.open(tmp_path / "c", mountpoint=b"/layer")
    assert again.new_hardlink_group() == 2
    assert again.chunks(b"/layer/f", file) == chunks
    again.remove(b"/layer/f")
    again.remove_nested(b"/layer/n")
    assert (again.counters.self_.chunks, again.counters.self_.nested, again.counters.self_.regular) == (
        0,
        0,
        1,
    )
    with pytest.raises(CatalogError, match="no entry"):
        again.remove(b"/layer/f")
    with pytest.raises(CatalogError, match="no nested catalog"):
        again.remove_nested(b"/layer/n")
    again.advance(now=6, previous=Digest.of(b"old"))
    again.finish()
    catalog = Catalog.open(tmp_path / "c", mountpoint=b"/layer")
    assert catalog.properties["root_prefix"] == "/layer"
    assert catalog.properties["previous_revision"] == Digest.of(b"old").text
    assert catalog.revision == 1
    assert catalog.counters.self_.file_size == 10
    assert catalog.nested() == ()
    catalog.close()


def numbers(file: Path) -> dict[bytes, int]:
    return {bytes(name): row for name, row in rows(file, "SELECT name, rowid FROM catalog")}


def test_what_changes_keeps_its_row_and_so_does_the_rest(tmp_path: Path) -> None:
    """The reference client takes row 1 of the root catalog for the root: another entry there is EIO."""
    regular = DirectoryEntry(b"", stat.S_IFREG | 0o644, 10, flags=EntryFlag.FILE)
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5)
    writer.add(b"", DIRECTORY)
    for number in range(2000):
        writer.add(b"/%d" % number, regular._replace(name=b"%d" % number))
    writer.finish()
    before = numbers(tmp_path / "c")
    assert before[b""] == 1
    writer = CatalogWriter.open(tmp_path / "c", mountpoint=b"")
    chunked = regular._replace(name=b"7", flags=EntryFlag.FILE | EntryFlag.CHUNKED)
    writer.replace(b"", DIRECTORY._replace(mtime=6))
    writer.replace(b"/7", chunked, [Chunk(0, 4, Digest.of(b"1")), Chunk(4, 6, Digest.of(b"2"))])
    for number in range(1000, 2000):  # so much that the file is packed anew
        writer.remove(b"/%d" % number)
    writer.finish()
    after = numbers(tmp_path / "c")
    assert after == {name: row for name, row in before.items() if len(name) < 4}
    catalog = Catalog.open(tmp_path / "c", mountpoint=b"")
    root = catalog.lookup(b"")
    assert root is not None
    assert (root.mtime, len(catalog.chunks(b"/7"))) == (6, 2)
    assert (catalog.counters.self_.regular, catalog.counters.self_.chunks) == (1000, 2)
    catalog.close()


@pytest.mark.parametrize("mountpoint", [b"", b"/layer"])
def test_the_root_is_in_row_1_whenever_it_came(mountpoint: bytes, tmp_path: Path) -> None:
    regular = DirectoryEntry(b"f", stat.S_IFREG | 0o644, 10, flags=EntryFlag.FILE)
    root = DIRECTORY._replace(name=mountpoint[1:])
    writer = CatalogWriter.create(tmp_path / "c", mountpoint=mountpoint, now=5)
    writer.add(mountpoint + b"/f", regular)
    writer.add(mountpoint + b"/g", regular._replace(name=b"g"))
    writer.add(mountpoint, root)
    writer.finish()
    assert numbers(tmp_path / "c") == {root.name: 1, b"g": 2, b"f": 4}


def test_one_path_twice_is_refused(tmp_path: Path) -> None:
    with CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5) as writer:
        writer.add(b"", DIRECTORY)
        writer.add(b"", DIRECTORY)
        with pytest.raises(CatalogError, match="UNIQUE"):
            writer.flush()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE properties SET value = 'ff' WHERE key = 'revision'",
        "UPDATE properties SET value = x'e9' WHERE key = 'revision'",
        "INSERT INTO nested_catalogs VALUES ('/n', NULL, 5)",
        "INSERT INTO nested_catalogs VALUES ('/n', '\u00e9', 5)",
        "INSERT INTO chunks SELECT md5path_1, md5path_2, NULL, 'x', NULL FROM catalog",
    ],
)
def test_catalogs_of_others_are_not_believed(tmp_path: Path, statement: str) -> None:
    with CatalogWriter.create(tmp_path / "c", mountpoint=b"", now=5) as writer:
        writer.add(b"", DIRECTORY)
        writer.finish()
    with sqlite3.connect(tmp_path / "c") as connection:
        connection.execute(statement)
    connection.close()

    def use() -> None:
        with CatalogWriter.open(tmp_path / "c", mountpoint=b"") as writer:
            writer.nested()
            writer.chunks(b"", DIRECTORY)
            writer.advance(now=6, previous=None)

    with pytest.raises(CatalogError, match="the catalog of / cannot be used: "):
        use()
