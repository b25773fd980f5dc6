"""What a stream of entries means: replacing, making up, linking, and each entry's columns."""

import io
import os
import stat
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import IngestError
from cvmfs_graphdriver.publisher.ingest import tree as ingest
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import Compression, EntryFlag
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from cvmfs_graphdriver.repository.chunking import ChunkSizes
from cvmfs_graphdriver.repository.digest import Algorithm
from tests.support.entries import device, directory, file, hardlink, symlink
from tests.support.storage_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_every_attribute_is_kept(site: Site) -> None:
    capability = b"\x01\x00\x00\x02" + bytes(16)
    about = {"uid": 1000, "gid": 4_000_000_000, "mtime": -5, "mtime_ns": 123_456_789}
    xattrs = {b"user.b": b"\0\xff", b"security.capability": capability, b"user.a": b""}
    site.publish(
        {
            b"/l": [
                directory("", 0o2771, **about),
                directory("/d", 0o1777, **about, xattrs=xattrs),
                file("/d/f", b"content", 0o4755, **about, xattrs=xattrs),
                symlink("/d/s", b"../over/\xff", **about),
                device("/d/null", stat.S_IFCHR, os.makedev(1, 3), **about),
                device("/d/disk", stat.S_IFBLK, os.makedev(259, 1_000_000), **about),
                device("/d/pipe", stat.S_IFIFO, **about),
                device("/d/socket", stat.S_IFSOCK, **about),
                file(b"/d/\xff\xfe odd\n", b""),
                file("/d/.wh.gone", b""),
                file("/d/.wh..wh..opq", b""),
            ]
        }
    )
    tree = site.tree(b"/l")
    assert len(tree) == 11
    for path in (b"", b"/d", b"/d/f", b"/d/s", b"/d/null", b"/d/disk", b"/d/pipe", b"/d/socket"):
        entry = tree[path][0]
        assert (entry.uid, entry.gid, entry.mtime, entry.mtime_ns) == (1000, 4_000_000_000, -5, 123_456_789)
    assert tree[b""][0].mode == stat.S_IFDIR | 0o2771
    assert tree[b""][0].flags == EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT
    assert tree[b"/d"][0].mode == stat.S_IFDIR | 0o1777
    assert parse_xattrs(tree[b"/d"][0].xattr) == xattrs
    found, content = tree[b"/d/f"]
    assert (found.mode, found.size, content) == (stat.S_IFREG | 0o4755, 7, b"content")
    assert parse_xattrs(found.xattr) == xattrs
    assert found.flags == EntryFlag.FILE
    assert tree[b"/d/s"][0].symlink == b"../over/\xff"
    assert tree[b"/d/s"][0].flags == EntryFlag.FILE | EntryFlag.SYMLINK
    assert tree[b"/d/null"][0].rdev == os.makedev(1, 3)
    assert tree[b"/d/disk"][0].rdev == os.makedev(259, 1_000_000)
    assert tree[b"/d/socket"][0].mode == stat.S_IFSOCK | 0o600
    assert tree[b"/d/pipe"][0].flags == EntryFlag.FILE | EntryFlag.SPECIAL
    assert b"/d/\xff\xfe odd\n" in tree
    assert site.findings() == []


def test_directories_that_are_missing_are_made_up(site: Site) -> None:
    site.publish({b"/l": [file("/a/b/c", mtime=77), directory("/a", 0o700, mtime=5, uid=3)]})
    tree = site.tree(b"/l")
    made, described = tree[b"/a/b"][0], tree[b"/a"][0]
    assert (made.mode, made.uid, made.mtime, made.linkcount) == (stat.S_IFDIR | 0o755, 0, 77, 2)
    assert (described.mode, described.uid, described.mtime) == (stat.S_IFDIR | 0o700, 3, 5)
    assert described.linkcount == 3
    assert tree[b""][0].linkcount == 3


def test_later_entries_replace_earlier_ones(site: Site) -> None:
    site.publish(
        {
            b"/l": [
                file("/f", b"one"),
                file("/f", b"two"),
                file("/file-to-directory", b"x"),
                directory("/file-to-directory"),
                file("/file-to-directory/in", b"y"),
                file("/directory-to-file/a/b", b"x"),
                file("/directory-to-file/a/c", b"x"),
                symlink("/directory-to-file", b"f"),
                file("/back/old", b"x"),
                file("/back", b"x"),
                directory("/back"),
                file("/back/new", b"x"),
                symlink("/s", b"x"),
                device("/s", stat.S_IFIFO),
            ]
        }
    )
    tree = site.tree(b"/l")
    assert set(tree) == {
        b"",
        b"/f",
        b"/file-to-directory",
        b"/file-to-directory/in",
        b"/directory-to-file",
        b"/back",
        b"/back/new",
        b"/s",
    }
    assert tree[b"/f"][1] == b"two"
    assert tree[b"/directory-to-file"][0].is_symlink
    assert tree[b"/s"][0].is_special
    assert site.findings() == []


def test_hard_links_are_groups_even_across_directories(site: Site) -> None:
    site.publish(
        {
            b"/l": [
                file("/bin/a", b"content", 0o4711, uid=7, xattrs={b"user.x": b"y"}),
                hardlink("/bin/b", "/bin/a"),
                hardlink("/lib/c", "/bin/b"),
                symlink("/one", b"target"),
                hardlink("/two", "/one"),
                file("/alone", b"x"),
            ]
        }
    )
    tree = site.tree(b"/l")
    members = [tree[path] for path in (b"/bin/a", b"/bin/b", b"/lib/c")]
    assert {(e.hardlink_group, e.linkcount, e.mode, e.uid, e.size, c) for e, c in members} == {
        (members[0][0].hardlink_group, 3, stat.S_IFREG | 0o4711, 7, 7, b"content")
    }
    assert members[0][0].hardlink_group > 0
    links = [tree[path][0] for path in (b"/one", b"/two")]
    assert {(e.linkcount, e.symlink) for e in links} == {(2, b"target")}
    assert links[0].hardlink_group == links[1].hardlink_group != members[0][0].hardlink_group
    assert (tree[b"/alone"][0].hardlink_group, tree[b"/alone"][0].linkcount) == (0, 1)
    assert site.findings() == []


def test_a_link_keeps_the_file_that_had_the_name(site: Site) -> None:
    """As ``ln`` does: what later takes the old name's place is another file."""
    site.publish(
        {
            b"/l": [
                file("/a", b"old"),
                hardlink("/b", "/a"),
                hardlink("/c", "/b"),
                file("/a", b"new"),
                file("/x", b"mine"),
                hardlink("/x", "/a"),
                hardlink("/b", "/b"),
            ]
        }
    )
    tree = site.tree(b"/l")
    assert {path: content for path, (_, content) in tree.items()} == {
        b"": b"",
        b"/a": b"new",
        b"/b": b"old",
        b"/c": b"old",
        b"/x": b"new",
    }
    assert tree[b"/b"][0].hardlink_group == tree[b"/c"][0].hardlink_group != tree[b"/a"][0].hardlink_group
    assert {tree[path][0].linkcount for path in (b"/a", b"/b", b"/c", b"/x")} == {2}
    assert site.findings() == []


@pytest.mark.parametrize("waiting", [0, 10_000])
def test_links_to_files_written_long_ago(site: Site, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr(ingest, "_MOST_WAITING", waiting)
    many = [file(f"/f{number}", b"%d" % number) for number in range(100)]
    links = [hardlink(f"/g{number}", f"/f{number}") for number in range(100)]
    again = [hardlink(f"/h{number}", f"/g{number}") for number in range(100)]
    site.publish({b"/l": [*many, *links, *again]})
    tree = site.tree(b"/l")
    groups = set()
    for number in range(100):
        names = [b"/%c%d" % (letter, number) for letter in b"fgh"]
        entries = [tree[name][0] for name in names]
        assert {tree[name][1] for name in names} == {b"%d" % number}
        assert {(e.hardlink_group, e.linkcount) for e in entries} == {(entries[0].hardlink_group, 3)}
        groups.add(entries[0].hardlink_group)
    assert len(groups) == 100
    assert 0 not in groups
    assert site.findings() == []


def test_groups_shrink_with_what_is_replaced(site: Site) -> None:
    site.publish(
        {
            b"/l": [
                file("/d/a", b"x"),
                hardlink("/b", "/d/a"),
                hardlink("/c", "/b"),
                file("/d", b"in the way"),
            ]
        }
    )
    tree = site.tree(b"/l")
    assert set(tree) == {b"", b"/b", b"/c", b"/d"}
    assert tree[b"/b"][0].linkcount == 2
    assert site.findings() == []


def test_groups_across_directories_can_be_broken_up_as_the_stock_server_does(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(break_cross_directory_hardlinks=True))
    entries = [file("/d1/a", b"x"), hardlink("/d1/b", "/d1/a"), hardlink("/d2/c", "/d1/a")]
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/l", entries)
        transaction.publish()
        assert transaction.notes == ["broke up 1 hard-link groups that cross directories"]
    tree = site.tree(b"/l")
    assert [tree[path][0].linkcount for path in (b"/d1/a", b"/d1/b", b"/d2/c")] == [2, 2, 1]
    assert {content for path, (_, content) in tree.items() if path.count(b"/") == 2} == {b"x"}
    assert site.findings() == []


def test_special_files_can_be_left_out(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(ignore_special_files=True))
    entries = [
        device("/null", stat.S_IFCHR, 259),
        file("/f"),
        symlink("/s", b"f"),
        device("/p", stat.S_IFIFO),
    ]
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/l", entries)
        transaction.publish()
        assert transaction.notes == ["left out the special file '/null'", "left out the special file '/p'"]
    assert site.names(b"/l") == {b"", b"/f", b"/s"}


def test_extended_attributes_can_be_left_out(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(include_xattrs=False))
    site.publish({b"/l": [file("/f", xattrs={b"user.a": b"b"})]})
    assert site.tree(b"/l")[b"/f"][0].xattr == b""


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_every_algorithm(tmp_path: Path, compression: Compression, algorithm: Algorithm) -> None:
    options = RepositoryOptions(
        algorithm=algorithm, compression=compression, chunking=ChunkSizes(32_768, 65_537, 131_072)
    )
    site = Site(tmp_path, options)
    big = os.urandom(300_000)
    site.publish({b"/l": [file("/small", b"small"), file("/big", big), hardlink("/also", "/big")]})
    tree = site.tree(b"/l")
    assert tree[b"/small"][1] == b"small"
    assert tree[b"/also"][1] == tree[b"/big"][1] == big
    assert tree[b"/also"][0].is_chunked
    for path in (b"/small", b"/big"):
        assert tree[path][0].hash_algorithm is algorithm
        assert tree[path][0].compression is compression
    assert site.findings() == []


def test_entries_below_a_link_belong_where_it_points(site: Site) -> None:
    """As tar does it in the root of the tree; nothing leads out of that."""
    site.publish(
        {
            b"/l": [
                directory("/usr/lib", mtime=5),
                symlink("/lib", b"usr/lib"),
                file("/lib/a", b"a"),
                directory("/lib/d"),
                hardlink("/b", "/lib/a"),
                symlink("/usr/up", b"../../../../etc"),
                file("/usr/up/passwd", b"x"),
                symlink("/absolute", b"/usr/./lib/../lib//"),
                file("/absolute/c", b"c"),
                symlink("/dangling", b"var/new"),
                file("/dangling/n", b"n"),
                symlink("/replaced", b"usr"),
                directory("/replaced"),
                file("/replaced/r", b"r"),
            ]
        }
    )
    assert {p for p, (e, _) in site.tree(b"/l").items() if not e.is_directory and not e.is_symlink} == {
        b"/usr/lib/a",
        b"/b",
        b"/etc/passwd",
        b"/usr/lib/c",
        b"/var/new/n",
        b"/replaced/r",
    }
    assert site.names(b"/l") >= {b"/usr/lib/d", b"/lib", b"/dangling"}
    assert site.findings() == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([file("relative")], "not a path below"),
        ([file("/a/../b")], "not a path below"),
        ([file("/a//b")], "not a path below"),
        ([file("/a/")], "not a path below"),
        ([file("/" + "n" * 256)], "not a path below"),
        ([file(b"/zero\0byte")], "zero byte"),
        ([(TreeEntry(b"", stat.S_IFREG), None)], "cannot be a file"),
        ([(TreeEntry(b"/f", stat.S_IFREG), None)], "has no content"),
        ([hardlink("/b", "/a")], "'/b' is a hard link to '/a'"),
        ([hardlink("/b", "/a"), file("/a")], "'/b' is a hard link to '/a'"),
        ([directory("/a"), hardlink("/b", "/a")], "hard link"),
        ([file("/a"), directory("/a"), hardlink("/b", "/a")], "hard link"),
        ([hardlink("/b", "/none/a")], "hard link"),
        ([file("/f", xattrs={b"user.a": bytes(256)})], "'/f' cannot be stored"),
        ([symlink("/a", b"b"), symlink("/b", b"a"), file("/a/x")], "too many symbolic links"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_changes(
    tmp_path: Path, entries: list[tuple[TreeEntry, io.BytesIO | None]], message: str
) -> None:
    site = Site(tmp_path)
    before = site.files()
    with Transaction(site.open()) as transaction:
        with pytest.raises(IngestError, match=message):
            transaction.ingest(b"/l", [file("/before", b"x"), *(replace_reader(one) for one in entries)])
        assert transaction.lookup(b"/l") is None
    assert site.files() == before


def replace_reader(one: tuple[TreeEntry, io.BytesIO | None]) -> tuple[TreeEntry, io.BytesIO | None]:
    """The parameters above are shared by test runs, so their readers are wound back."""
    entry, reader = one
    if reader is not None:
        reader.seek(0)
    return entry, reader
