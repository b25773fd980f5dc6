"""What a walker will read is given to the kernel before he asks, once the kernel knows the files."""

import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.planes.walk.feeder import Feeder
from cvmfs_graphdriver.planes.walk.page_cache import Offer
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry

NOWHERE: Any = None
COUNT = 200


class Kernel:
    """A tree of one directory, whose files are fetched at once, and a kernel that may know them."""

    def __init__(self, directory: Path) -> None:
        mode = stat.S_IFREG | 0o644
        self.directory = directory
        self.top = Node(b"", 1, 1, DirectoryEntry(b"", stat.S_IFDIR | 0o755, 0), NOWHERE)
        self.files = [
            Node(b"/%d" % row, row + 1, 1, DirectoryEntry(b"%d" % row, mode, 100, row=row), NOWHERE)
            for row in range(1, COUNT + 1)
        ]
        self.knows = True
        self.absent: Any = None
        self.given: dict[int, bytes] = {}
        self.fetched: set[int] = set()
        self.settled = 0
        self.closed = False

    def node(self, inode: int) -> Node:
        return self.top if inode == 1 else self.files[inode - 2]

    def children(self, _: Node, after: int = 0) -> Iterator[Node]:
        return iter(self.files[after:])

    def prefetch(self, nodes: Any, arrived: Any) -> int:
        missing = 0
        for node in nodes:
            path = self.directory / str(node.inode)
            if not path.exists():
                missing += 1
                path.write_bytes(b"%100d" % node.inode)
            self.fetched.add(node.inode)
            arrived(node, str(path))
        return missing

    def cached_path(self, node: Node) -> str:
        return str(self.directory / str(node.inode))

    def offer(self, files: Sequence[Offer]) -> None:
        for file in files:
            if not Path(file.path).exists():
                assert file.is_sought
                self.absent([file.inode])
            elif self.knows and file.is_given:
                self.given[file.inode] = Path(file.path).read_bytes()
                assert len(self.given[file.inode]) == file.size

    def settle(self, seconds: float) -> None:
        assert 0 < seconds < 1
        self.settled += 1

    def close(self) -> None:
        self.closed = True


def _read(kernel: Kernel, feeder: Feeder) -> None:
    """Read all files in order, those that the kernel has by itself."""
    for node in kernel.files:
        if node.inode not in kernel.given:
            feeder.opened(node)
        time.sleep(0.005)


def test_most_files_are_given_to_the_kernel(tmp_path: Path) -> None:
    kernel: Any = Kernel(tmp_path)
    feeder = Feeder(lambda: kernel, kernel)
    _read(kernel, feeder)
    feeder.close()
    assert len(kernel.given) > COUNT * 0.8
    assert all(content == b"%100d" % inode for inode, content in kernel.given.items())


def test_what_is_in_the_clients_cache_is_given_without_fetching(tmp_path: Path) -> None:
    kernel: Any = Kernel(tmp_path)
    for node in kernel.files:
        _file(tmp_path, node.inode)
    missing = {node.inode for node in kernel.files[180:190]}
    for inode in missing:
        (tmp_path / str(inode)).unlink()
    feeder = Feeder(lambda: kernel, kernel)
    _read(kernel, feeder)
    feeder.close()
    assert len(kernel.given) > COUNT * 0.8
    assert all(content == b"%100d" % inode for inode, content in kernel.given.items())
    assert missing <= kernel.fetched
    assert len(kernel.fetched) < COUNT / 2, "the feeder looks where the content is only if it must fetch it"


def test_files_are_kept_until_their_directory_has_been_listed(tmp_path: Path) -> None:
    kernel: Any = Kernel(tmp_path)
    feeder = Feeder(lambda: kernel, kernel)
    feeder._receive(kernel.files[0]._replace(parent_inode=99), _file(tmp_path, kernel.files[0].inode))
    assert not kernel.given
    feeder.listed(98)
    assert not kernel.given
    assert not kernel.settled, "nothing is waited for if there was nothing"
    feeder.listed(99)
    assert kernel.given == {kernel.files[0].inode: b"%100d" % kernel.files[0].inode}
    assert kernel.settled == 1
    feeder.listed(99)
    assert kernel.settled == 1
    feeder._receive(kernel.files[1]._replace(parent_inode=99), _file(tmp_path, kernel.files[1].inode))
    assert kernel.files[1].inode in kernel.given
    feeder.close()
    assert kernel.closed


def _file(directory: Path, inode: int) -> str:
    path = directory / str(inode)
    path.write_bytes(b"%100d" % inode)
    return str(path)
