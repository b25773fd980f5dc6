"""A big tree becomes several catalogs, and nobody sees a difference but in how much must be loaded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.options import RepositoryOptions, Weights
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.chunking import ChunkSizes
from tests.support.entries import directory, file, hardlink, symlink
from tests.support.storage_site import Entries, Site

CHUNKING = ChunkSizes(32_768, 65_537, 131_072)
FLAGS = EntryFlag.NESTED_MOUNTPOINT | EntryFlag.NESTED_ROOT


def tree() -> Entries:
    return [
        *(file(f"/small/{n}", b"%d" % n) for n in range(5)),
        directory("/big", 0o1777, uid=7, mtime=99, mtime_ns=5),
        *(file(f"/big/a/{n}", b"a%d" % n, mtime=3) for n in range(30)),
        *(file(f"/big/b/{n}", b"b%d" % n, mtime=3) for n in range(30)),
        *(file(f"/big/b/deep/{n}", b"d%d" % n) for n in range(30)),
        file("/big/b/deep/chunked", bytes(range(256)) * 2000),
        symlink("/big/b/deep/link", b"chunked"),
        *(file(f"/tied/c/{n}", b"c%d" % n) for n in range(30)),
        hardlink("/tied/names", "/tied/c/1"),
        hardlink("/tied/c/within", "/tied/c/2"),
        hardlink("/big/a/within", "/big/a/2"),
    ]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "split", RepositoryOptions(chunking=CHUNKING, catalog_weights=Weights(40, 20)))
    site.publish({b"/l": tree()})
    return site


def plain(entry: DirectoryEntry) -> DirectoryEntry:
    """An entry without what tells in which catalog it is."""
    return entry._replace(flags=entry.flags & ~FLAGS, hardlink_group=0, row=0)


def nested(site: Site, mountpoint: bytes) -> set[bytes]:
    catalog = site.catalog(mountpoint)
    try:
        return {reference.path for reference in catalog.nested()}
    finally:
        catalog.close()


def test_every_catalog_is_light_and_no_link_is_cut(site: Site) -> None:
    assert nested(site, b"/l") == {b"/l/big", b"/l/tied"}
    assert nested(site, b"/l/big") == {b"/l/big/a", b"/l/big/b/deep"}
    assert nested(site, b"/l/tied") == set()  # for a file has names in /tied and in /tied/c
    assert site.findings() == []


def test_stock_tools_find_a_marker_in_every_catalog(site: Site) -> None:
    """Real ``check``: "nested catalog without marker"; no counter and no client may be the worse for it."""
    site.publish({b"/own": [file("/.cvmfscatalog", b"the image's", 0o600)]})
    for mountpoint in (b"/l", b"/l/big", b"/l/tied", b"/l/big/a", b"/l/big/b/deep"):
        catalog = site.catalog(mountpoint)
        marker = catalog.lookup(mountpoint + b"/.cvmfscatalog")
        assert marker is not None
        assert marker.flags == EntryFlag.FILE | EntryFlag.HIDDEN
        assert (marker.mode, marker.size, marker.uid) == (0o100644, 0, 0)
        assert marker.digest is not None
        assert marker.name not in {entry.name for entry in catalog.listing(mountpoint)}
        assert catalog.counters.self_.regular == sum(
            row.is_regular for row in every_entry(catalog, mountpoint)
        )
        catalog.close()
    catalog = site.catalog(b"/own")
    own = catalog.lookup(b"/own/.cvmfscatalog")
    assert own is not None
    assert (own.flags, own.size, catalog.counters.self_.regular) == (EntryFlag.FILE, 11, 1)
    catalog.close()
    assert site.findings() == []


def every_entry(catalog: Catalog, directory: bytes) -> Iterator[DirectoryEntry]:
    for entry in catalog.listing(directory, hidden=True):
        yield entry
        if entry.is_directory and EntryFlag.NESTED_MOUNTPOINT not in entry.flags:
            yield from every_entry(catalog, directory + b"/" + entry.name)


def test_the_tree_is_the_same(site: Site, tmp_path: Path) -> None:
    whole = Site(tmp_path / "whole", RepositoryOptions(chunking=CHUNKING, catalog_weights=None))
    whole.publish({b"/l": tree()})
    assert nested(whole, b"/l") == set()
    ours, theirs = site.tree(b"/l"), whole.tree(b"/l")
    assert ours.keys() == theirs.keys()
    for path, (entry, content) in ours.items():
        other, same = theirs[path]
        assert content == same
        assert bool(entry.hardlink_group) == bool(other.hardlink_group)
        assert plain(entry) == plain(other)


def test_it_can_be_replaced_and_removed(site: Site) -> None:
    site.publish({b"/l": tree()})
    assert site.findings() == []
    site.publish({b"/l": [file("/f", b"x")]})
    assert site.names(b"/l") == {b"", b"/f"}
    assert site.findings() == []
    site.publish({b"/l": tree()})
    site.publish({}, remove=[b"/l"])
    assert nested(site, b"") == set()
    assert site.findings() == []


def test_what_is_light_stays_whole(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(chunking=CHUNKING))
    site.publish({b"/l": tree()})
    assert nested(site, b"/l") == set()
