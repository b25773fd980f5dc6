"""What a walker will read is given to the kernel before he asks, once the kernel knows the files."""

import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

from cvmfs_graphdriver.client.revision import Node
from cvmfs_graphdriver.planes.feeder import Feeder
from cvmfs_graphdriver.repository.entry import DirectoryEntry

NOWHERE: Any = None
COUNT = 200


class Kernel:
    """A tree of one directory, whose files are fetched at once, and a kernel that may know them."""

    def __init__(self, directory: Path) -> None:
        mode = stat.S_IFREG | 0o644
        self.directory = directory
        self.top = Node(b"", 1, 1, DirectoryEntry(b"", stat.S_IFDIR | 0o755, 0), NOWHERE)
        self.files = [
            Node(b"/%d" % number, number + 2, 1, DirectoryEntry(b"%d" % number, mode, 100), NOWHERE)
            for number in range(COUNT)
        ]
        self.knows = True
        self.given: dict[int, bytes] = {}
        self.fetched: set[int] = set()
        self.lock = threading.Lock()

    def node(self, inode: int) -> Node:
        return self.top if inode == 1 else self.files[inode - 2]

    def children(self, _: Node) -> list[Node]:
        return self.files

    def prefetch(self, node: Node, arrived: Any) -> bool:
        path = self.directory / str(node.inode)
        path.write_bytes(b"%100d" % node.inode)
        self.fetched.add(node.inode)
        arrived(os.open(path, os.O_RDONLY))
        return True

    def store(self, inode: int, content: bytes) -> bool:
        if self.knows:
            self.given[inode] = content
        return self.knows


def _eventually(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _read(kernel: Kernel, feeder: Feeder) -> None:
    """Read all files in order, those that the kernel has by itself."""
    for node in kernel.files:
        if node.inode not in kernel.given:
            feeder.opened(node)
        time.sleep(0.005)


def test_most_files_are_given_to_the_kernel(tmp_path: Path) -> None:
    kernel: Any = Kernel(tmp_path)
    feeder = Feeder(lambda: kernel, kernel.store)
    _read(kernel, feeder)
    feeder.close()
    assert len(kernel.given) > COUNT * 0.8
    assert all(content == b"%100d" % inode for inode, content in kernel.given.items())


def test_files_that_the_kernel_does_not_know_are_kept_until_it_does(tmp_path: Path) -> None:
    kernel: Any = Kernel(tmp_path)
    kernel.knows = False
    feeder = Feeder(lambda: kernel, kernel.store)
    before = len(os.listdir("/proc/self/fd"))
    for node in kernel.files[:40]:
        feeder.opened(node)
    _eventually(lambda: len(kernel.fetched) > 40)
    time.sleep(0.2)
    kernel.knows = True
    feeder.listed(1)
    _eventually(lambda: len(kernel.given) > 10)
    feeder.close()
    assert kernel.given.keys() <= kernel.fetched
    assert len(os.listdir("/proc/self/fd")) == before
