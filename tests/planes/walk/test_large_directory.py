"""A directory with more files than are remembered, read through a real kernel, all in the cache."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.tree.revision import Node, Revision
from cvmfs_graphdriver.kernel.fuse.wire import StatFs
from cvmfs_graphdriver.planes.filesystem.revision_filesystem import Presentation, RevisionFilesystem
from tests.planes.filesystem.test_kernel_pages import NoPages
from tests.support.entries import file
from tests.support.memory_filesystem import serving
from tests.support.published import published

FILES = 6000
READ = 400


class Counting:
    """A revision that counts the nodes that it lists. Nothing that it is asked to fetch is missing."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self.listed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._revision, name)

    def children(self, parent: Node, after: int = 0) -> Iterator[Node]:
        for node in self._revision.children(parent, after):
            self.listed += 1
            yield node

    def prefetch(self, nodes: Any, arrived: Any) -> int:
        del nodes, arrived
        return 0


@pytest.mark.root
def test_it_is_listed_once_for_the_kernel_and_once_for_the_guess(tmp_path: Path) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    with published(tmp_path / "repository") as repository:
        repository.publish({b"/d": [file(f"/{number}", b"%d" % number) for number in range(FILES)]})
        with closing(Client(repository.settings(CVMFS_MEMCACHE_SIZE="4"))) as client:
            tree: Any = Counting(client.mount())
            filesystem = RevisionFilesystem(
                tree, Presentation(), lambda: StatFs(0, 0, 0, 0), client.counters, NoPages()
            )
            with serving(filesystem, target), closing(filesystem):
                names = os.listdir(target / "d")
                assert sorted(map(int, names)) == list(range(FILES))
                assert tree.listed < 1.2 * FILES
                before = tree.listed
                for name in names[:READ]:
                    assert (target / "d" / name).read_bytes() == name.encode()
            assert tree.listed - before < FILES / 2
            assert tree.listed - before < 8 * READ
