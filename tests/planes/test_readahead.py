"""Guesses of what will be read next."""

import stat
from collections.abc import Sequence
from typing import Any

from cvmfs_graphdriver.client.revision import Node
from cvmfs_graphdriver.planes.readahead import ReadAhead
from cvmfs_graphdriver.repository.entry import DirectoryEntry

NOWHERE: Any = None
BIG = 2 << 20


def directory_of(inode: int, count: int, size: int = 100) -> list[Node]:
    """The files of a directory; every tenth entry is no small file."""
    nodes = []
    for number in range(count):
        mode = stat.S_IFDIR | 0o755 if number % 10 == 9 else stat.S_IFREG | 0o644
        entry = DirectoryEntry(b"%d" % number, mode, size)
        nodes.append(Node(b"/%d/%d" % (inode, number), inode * 1000 + number, inode, entry, NOWHERE))
    return nodes


class Walk:
    """A reader of listed directories, and what is fetched ahead of him."""

    def __init__(self, *directories: tuple[int, int], size: int = 100) -> None:
        self.directories = {inode: directory_of(inode, count, size) for inode, count in directories}
        self.asked: list[int] = []
        self.ahead = ReadAhead(self.children)
        self.fetched: list[int] = []

    def children(self, inode: int) -> Sequence[Node]:
        self.asked.append(inode)
        return self.directories[inode]

    def files(self, inode: int) -> list[Node]:
        return [node for node in self.directories[inode] if node.entry.is_regular]

    def show(self, inode: int) -> list[int]:
        return self.note(self.ahead.listed(inode, self.directories[inode]))

    def read(self, node: Node) -> list[int]:
        return self.note(self.ahead.opened(node))

    def note(self, nodes: Sequence[Node]) -> list[int]:
        found = [node.inode for node in nodes]
        self.fetched += found
        return found


def test_a_few_files_in_order_cause_nothing() -> None:
    walk = Walk((1, 50))
    assert walk.show(1) == []
    for node in walk.files(1)[:2]:
        assert walk.read(node) == []


def test_whoever_reads_on_gets_the_next_files_once() -> None:
    walk = Walk((1, 300))
    walk.show(1)
    files = walk.files(1)
    for position, node in enumerate(files):
        ahead = walk.read(node)
        assert len(ahead) <= 48
        assert all(inode > node.inode for inode in ahead), f"at {position}"
    assert len(walk.fetched) == len(set(walk.fetched))
    assert set(walk.fetched) == {node.inode for node in files[3:]}


def test_reading_here_and_there_causes_nothing() -> None:
    walk = Walk((1, 300))
    walk.show(1)
    files = walk.files(1)
    for step in range(200):
        assert walk.read(files[step * 7919 % len(files)]) == []


def test_a_walker_gets_the_files_of_the_next_directory_when_he_lists_it() -> None:
    walk = Walk((1, 60), (2, 5), (3, 60))
    for inode in (1, 2):
        walk.show(inode)
        for node in walk.files(inode):
            walk.read(node)
    assert walk.show(3) == [node.inode for node in walk.files(3)[:48]]


def test_who_only_lists_gets_nothing() -> None:
    walk = Walk(*((inode, 30) for inode in range(1, 100)))
    for inode in range(1, 100):
        assert walk.show(inode) == []


def test_guessing_stops_where_all_is_there() -> None:
    walk = Walk((1, 300))
    walk.show(1)
    files = walk.files(1)
    for node in files[:6]:
        walk.read(node)
    walk.ahead.missed()
    before = len(walk.fetched)
    for node in files[6:8]:
        walk.read(node)
    assert len(walk.fetched) == before


def test_directories_that_the_kernel_lists_by_itself_are_asked_for() -> None:
    walk = Walk((1, 100))
    files = walk.files(1)
    walk.read(files[0])
    assert walk.asked == []
    for node in files[1:20]:
        walk.read(node)
    assert walk.asked == [1]
    assert walk.fetched


def test_big_files_are_left_out() -> None:
    walk = Walk((1, 100), size=BIG)
    walk.show(1)
    for node in walk.files(1):
        assert walk.read(node) == []
