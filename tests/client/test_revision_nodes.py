"""Nodes of a revision: inodes that stay, nodes of older revisions, many threads."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.errors import StaleInodeError
from tests.client.test_client import V1, V2
from tests.client.tree.test_revision import mounted, read, walk
from tests.support.fixtures import serve
from tests.support.resigned import ResignedRepository


def test_inodes_are_unique_but_for_hard_links(tmp_path: Path) -> None:
    with mounted("hardlinks-aufs", tmp_path) as (_, revision, _):
        seen: dict[int, tuple[int, bytes]] = {}
        for node in walk(revision, revision.top):
            key = (
                node.entry.hardlink_group,
                node.mount.mountpoint if node.entry.hardlink_group else node.path,
            )
            assert seen.setdefault(node.inode, key) == key
        assert any(group for group, _ in seen.values())


@pytest.mark.parametrize("name", ["kitchen-sha1", "hardlinks-aufs", "virtualdir"])
def test_nodes_are_found_by_inode_after_a_restart(name: str, tmp_path: Path) -> None:
    with mounted(name, tmp_path) as (client, revision, _):
        nodes = [*walk(revision, revision.top)]
        if hidden := revision.lookup(b"/.cvmfs"):
            nodes += walk(revision, hidden)
        with closing(Client(client.settings)) as another:
            later = another.mount()
            for node in nodes:
                found = later.node(node.inode)
                assert found.inode == node.inode
                assert (
                    found.entry == node.entry or found.entry.hardlink_group == node.entry.hardlink_group != 0
                )
                if not node.entry.hardlink_group:
                    assert (found.path, found.parent_inode) == (node.path, node.parent_inode)
            with pytest.raises(StaleInodeError):
                later.node(10**12)
            with pytest.raises(StaleInodeError):
                later.node(0)


def test_lookup_children_and_node_agree(tmp_path: Path) -> None:
    with mounted("kitchen-sha1", tmp_path) as (_, revision, _):
        for parent in walk(revision, revision.top):
            for child in revision.children(parent):
                assert revision.child(parent, child.entry.name) == child
                assert revision.lookup(child.path) == child
                assert child.parent_inode == parent.inode
            assert revision.child(parent, b"no such name") is None
            if not parent.entry.is_directory:
                assert not list(revision.children(parent))
        assert revision.lookup(b"/no/such/path") is None
        assert revision.list(b"/no/such/path") == []


def test_old_nodes_stay_whole_when_a_new_revision_is_mounted(tmp_path: Path) -> None:
    repository = ResignedRepository("kitchen-sha1", tmp_path / "repository")
    repository.publish(*V1)
    with (
        serve(repository.directory) as server,
        closing(Client(repository.unpacked.settings(server.url, tmp_path))) as client,
    ):
        old = client.mount()
        nodes = [*walk(old, old.top)][1:]
        files = [node for node in nodes if node.entry.is_regular]
        content = [read(old, node) for node in files]
        repository.publish(*V2, seconds=1)
        new = client.refresh()
        assert new is not None
        # Asked by number, as a kernel does, the new revision knows what it showed before.
        for node in nodes:
            assert new.node(node.inode).entry.mode == node.entry.mode
            assert {child.path for child in new.children(new.node(node.inode))} == {
                child.path for child in old.children(node)
            }
        assert [read(new, node) for node in files] == content
        kept = [node for node in nodes if new.lookup(node.path) == node]
        moved = [node for node in nodes if new.lookup(node.path) not in (node, None)]
        assert kept, "catalogs that did not change keep their inodes"
        assert moved, "catalogs that changed have new inodes"
        assert new.node(1) == new.top != old.top


def test_many_threads(tmp_path: Path) -> None:
    overrides = {"CVMFS_CATALOG_WATERMARK": "2", "CVMFS_MEMCACHE_SIZE": "1"}
    with mounted("kitchen-sha1", tmp_path, **overrides) as (client, revision, server):
        expected = {node.path: node.inode for node in walk(revision, revision.top)}
        paths = [*expected]

        def work(seed: int) -> int:
            for number in range(len(paths)):
                path = paths[(number * 7 + seed * 13) % len(paths)]
                node = revision.lookup(path)
                assert node is not None
                assert node.inode == expected[path]
                assert revision.node(node.inode).entry.mode == node.entry.mode
                if node.entry.is_regular:
                    assert len(read(revision, node)) == node.entry.size
                list(revision.children(node))
            return len(paths)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(16))) == 16 * len(paths)
        fetched = {path: count for path, count in server.requests.items() if "/data/" in path}
        assert set(fetched.values()) == {1}, "each object was fetched once"
        assert len(client.catalogs.open_mounts()) <= 2
