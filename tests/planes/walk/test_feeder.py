"""What a walker will read is given to the kernel before he asks, once the kernel knows the files."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.planes.walk.feeder import Feeder
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
        self.given: dict[int, bytes] = {}
        self.fetched: set[int] = set()
        self.settled = 0
        self.closed = False

    def node(self, inode: int) -> Node:
        return self.top if inode == 1 else self.files[inode - 2]

    def children(self, _: Node, after: int = 0) -> Iterator[Node]:
        return iter(self.files[after:])

    def prefetch(self, nodes: Any, arrived: Any) -> int:
        for node in nodes:
            path = self.directory / str(node.inode)
            path.write_bytes(b"%100d" % node.inode)
            self.fetched.add(node.inode)
            arrived(node, str(path))
        return len(nodes)

    def offer(self, inode: int, size: int, path: str) -> None:
        content = Path(path).read_bytes()
        assert len(content) == size
        if self.knows:
            self.given[inode] = content

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
