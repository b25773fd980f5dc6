"""Filling a catalog from a stream: the last entry of a path counts, groups and counters are the end's."""

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.counters import Tally
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.loader import CatalogLoader
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import CatalogError

DIRECTORY = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY, linkcount=2)
Loaded = tuple[CatalogWriter, CatalogLoader]
CONTENT = Digest.of(b"content")


def file(name: bytes, *, size: int = 10, flags: EntryFlag = EntryFlag.FILE, group: int = 0) -> DirectoryEntry:
    return DirectoryEntry(
        name, stat.S_IFREG | 0o644, size, 7, flags=flags, digest=CONTENT, hardlink_group=group
    )


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    writer = CatalogWriter.create(tmp_path / "catalog", mountpoint=b"", now=1)
    yield writer, CatalogLoader(writer)
    writer.abandon()


def result(writer: CatalogWriter) -> Catalog:
    writer.finish()
    return Catalog.open(writer.path, mountpoint=b"")


def test_the_last_entry_of_a_path_counts(loaded: Loaded) -> None:
    writer, loader = loaded
    loader.put(b"", DIRECTORY)
    loader.put(b"/a", file(b"a", size=1))
    loader.lookup(b"/a")  # writes the first one out, so the next replaces it in the database
    loader.put(b"/a", file(b"a", size=2))
    loader.put(b"/a", file(b"a", size=3))
    loader.settle()
    catalog = result(writer)
    assert [(e.name, e.size) for e in catalog.listing(b"")] == [(b"a", 3)]
    assert catalog.counters.self_ == Tally(regular=1, dir=1, file_size=3)
    catalog.close()


@pytest.mark.parametrize("between", [True, False])
def test_chunks_of_replaced_files_are_gone(loaded: Loaded, between: bool) -> None:
    writer, loader = loaded
    chunked = file(b"c", size=20, flags=EntryFlag.FILE | EntryFlag.CHUNKED)
    loader.put(b"", DIRECTORY)
    loader.put(b"/c", chunked, [Chunk(0, 5, CONTENT), Chunk(5, 15, CONTENT)])
    loader.put(b"/gone", chunked._replace(name=b"gone"), [Chunk(0, 5, CONTENT), Chunk(5, 15, CONTENT)])
    if between:
        loader.lookup(b"/c")
    loader.put(b"/c", chunked, [Chunk(0, 12, CONTENT), Chunk(12, 8, CONTENT)])
    loader.put(b"/gone", file(b"gone"))
    loader.settle()
    catalog = result(writer)
    assert [(c.offset, c.size) for c in catalog.chunks(b"/c")] == [(0, 12), (12, 8)]
    assert catalog.chunks(b"/gone") == ()
    assert catalog.counters.self_ == Tally(
        regular=2, dir=1, file_size=30, chunked=1, chunks=2, chunked_size=20
    )
    catalog.close()


def test_every_kind_is_counted(loaded: Loaded) -> None:
    writer, loader = loaded
    loader.put(b"", DIRECTORY)
    loader.put(b"/l", DirectoryEntry(b"l", stat.S_IFLNK | 0o777, symlink=b"xy", flags=EntryFlag.SYMLINK))
    loader.put(b"/p", DirectoryEntry(b"p", stat.S_IFIFO, flags=EntryFlag.SPECIAL))
    loader.put(b"/x", file(b"x")._replace(xattr=b"\x01\x00"))
    loader.put(b"/e", file(b"e", size=4, flags=EntryFlag.FILE | EntryFlag.EXTERNAL))
    writer.put_nested(CatalogReference(b"/n", CONTENT, 1))
    loader.settle()
    catalog = result(writer)
    expected = Tally(
        regular=2,
        symlink=1,
        special=1,
        dir=1,
        nested=1,
        file_size=14,
        xattr=1,
        external=1,
        external_file_size=4,
    )
    assert catalog.counters.self_ == expected
    catalog.close()


def grouped(catalog: Catalog) -> dict[bytes, tuple[int, int]]:
    found = {}
    for directory in (b"", b"/d"):
        for entry in catalog.listing(directory):
            if not entry.is_directory:
                found[directory + b"/" + entry.name] = (entry.hardlink_group, entry.linkcount)
    return found


def link(loader: CatalogLoader, target: bytes, path: bytes) -> None:
    entry, chunks = loader.join(target)
    loader.put(path, entry._replace(name=path.rpartition(b"/")[2]), chunks)


def fill(loader: CatalogLoader) -> None:
    loader.put(b"", DIRECTORY)
    loader.put(b"/d", DIRECTORY._replace(name=b"d"))
    for path in (b"/alone", b"/a", b"/d/x"):
        loader.put(path, file(path.rpartition(b"/")[2]))
    link(loader, b"/alone", b"/replaced")
    link(loader, b"/a", b"/b")
    link(loader, b"/a", b"/d/c")
    link(loader, b"/d/x", b"/d/y")
    loader.put(b"/replaced", file(b"replaced"))


def test_groups_have_the_names_that_are_left(loaded: Loaded) -> None:
    writer, loader = loaded
    fill(loader)
    assert loader.settle() == 0
    catalog = result(writer)
    assert grouped(catalog) == {
        b"/alone": (0, 1),
        b"/replaced": (0, 1),
        b"/a": (1, 3),
        b"/b": (1, 3),
        b"/d/c": (1, 3),
        b"/d/x": (2, 2),
        b"/d/y": (2, 2),
    }
    catalog.close()


def test_groups_can_be_kept_within_directories(loaded: Loaded) -> None:
    writer, loader = loaded
    fill(loader)
    assert loader.settle(by_directory=True) == 1
    catalog = result(writer)
    groups = grouped(catalog)
    assert groups[b"/d/c"] == (0, 1)
    assert groups[b"/a"] == groups[b"/b"]
    assert groups[b"/d/x"] == groups[b"/d/y"] != groups[b"/a"]
    assert {count for _, count in (groups[b"/a"], groups[b"/d/x"])} == {2}
    catalog.close()


def test_a_chunked_file_keeps_its_chunks_under_every_name(loaded: Loaded) -> None:
    writer, loader = loaded
    loader.put(b"", DIRECTORY)
    chunked = file(b"c", size=20, flags=EntryFlag.FILE | EntryFlag.CHUNKED)
    loader.put(b"/c", chunked, [Chunk(0, 5, CONTENT), Chunk(5, 15, CONTENT)])
    link(loader, b"/c", b"/d")
    loader.settle()
    catalog = result(writer)
    assert catalog.chunks(b"/d") == catalog.chunks(b"/c") != ()
    assert catalog.counters.self_.chunks == 4
    catalog.close()


def test_a_cleared_directory_is_empty(loaded: Loaded) -> None:
    writer, loader = loaded
    fill(loader)
    loader.clear(b"/d")
    loader.settle()
    catalog = result(writer)
    assert catalog.listing(b"/d") == []
    assert grouped(catalog)[b"/a"] == (1, 2)
    catalog.close()


def test_what_is_no_file_cannot_be_joined(loaded: Loaded) -> None:
    _, loader = loaded
    loader.put(b"", DIRECTORY)
    for path in (b"", b"/nothing"):
        with pytest.raises(CatalogError, match="has no file"):
            loader.join(path)


def test_a_database_that_fails_is_a_catalog_error(loaded: Loaded) -> None:
    writer, loader = loaded
    writer._sql.close()
    with pytest.raises(CatalogError):
        loader.lookup(b"/a")
    writer._sql = sqlite3.connect(":memory:")
