"""Guesses of what will be read next."""

import stat
from collections.abc import Iterator, Sequence
from typing import Any

from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.planes.walk.readahead import ReadAhead
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry

NOWHERE: Any = None
BIG = 16 << 20


class Forest:
    """A tree in memory, a reader of it, and what is fetched ahead of him.

    ``shape`` is the content of a directory: a number of bytes for a file, another shape for a directory.
    """

    def __init__(self, *shape: Any) -> None:
        self.nodes: dict[int, Node] = {}
        self.listings: dict[int, list[Node]] = {}
        self.asked: list[int] = []
        self.listed = 0
        self.root = self._grow(b"", 0, shape)
        self.ahead = ReadAhead(self._children, self.nodes.__getitem__)
        self.fetched: list[Node] = []

    def _grow(self, path: bytes, parent: int, shape: Any) -> Node:
        inode = len(self.nodes) + 1
        is_file = isinstance(shape, int)
        mode = stat.S_IFREG | 0o644 if is_file else stat.S_IFDIR | 0o755
        entry = DirectoryEntry(path.rpartition(b"/")[2], mode, shape if is_file else 4096, row=inode)
        node = self.nodes[inode] = Node(path, inode, parent or inode, entry, NOWHERE)
        if not is_file:
            self.listings[inode] = [
                self._grow(b"%b/%d" % (path, number), inode, one) for number, one in enumerate(shape)
            ]
        return node

    def _children(self, directory: Node, after: int = 0) -> Iterator[Node]:
        self.asked.append(directory.inode)
        for node in self.listings[directory.inode]:
            if node.entry.row > after:
                self.listed += 1
                yield node

    def walk(self, node: Node | None = None) -> Iterator[Node]:
        """Files in the order in which tar reads them."""
        for child in self.listings[(node or self.root).inode]:
            if child.entry.is_directory:
                yield from self.walk(child)
            else:
                yield child

    def read(self, node: Node) -> Sequence[Node]:
        found = self.ahead.opened(node)
        self.fetched += found
        return found


def paths(nodes: Sequence[Node]) -> list[bytes]:
    return [node.path for node in nodes]


def test_a_few_files_in_order_cause_nothing() -> None:
    forest = Forest(*[100] * 50)
    files = list(forest.walk())
    for node in files[:3]:
        assert not forest.read(node)


def test_whoever_reads_on_gets_the_next_files_once_and_in_order() -> None:
    forest = Forest(*[100, 100, [], 100] * 800)
    files = list(forest.walk())
    for position, node in enumerate(files):
        forest.read(node)
        ahead = len(forest.fetched) - max(0, position - 4)
        assert ahead <= 2 * position + 2
        assert ahead <= 513
    assert paths(forest.fetched) == paths(files[5:])


def test_files_that_are_not_reported_count_as_read() -> None:
    forest = Forest(*[100] * 2000)
    files = list(forest.walk())
    waited = 0
    for node in files:
        if node not in forest.fetched:
            waited += 1
            forest.read(node)
        elif forest.fetched.index(node) % 16 == 15:
            forest.read(node)
    assert waited < 10
    assert len(forest.fetched) + waited == len(files)


def test_a_walker_gets_the_files_of_the_following_directories() -> None:
    forest = Forest([100] * 30, *[[100, [100, 100], 100]] * 100)
    for node in forest.walk():
        was_fetched = node in forest.fetched
        forest.read(node)
        assert was_fetched or node.path.startswith((b"/0/", b"/1/"))


def test_who_reads_one_directory_gets_no_others() -> None:
    forest = Forest([100] * 500, [100] * 500)
    for node in list(forest.walk())[:500]:
        forest.read(node)
    assert len(forest.fetched) > 400
    assert all(node.path.startswith(b"/0/") for node in forest.fetched)


def test_reading_here_and_there_causes_nothing() -> None:
    forest = Forest(*[100] * 300)
    files = list(forest.walk())
    for step in range(200):
        assert not forest.read(files[step * 7919 % len(files)])


def test_one_file_of_each_directory_causes_nothing() -> None:
    forest = Forest(*[[100] * 10] * 100)
    for node in list(forest.walk())[5::10]:
        assert not forest.read(node)
    assert not forest.asked


def test_who_stops_reading_gets_no_more() -> None:
    forest = Forest(*[100] * 100_000)
    files = list(forest.walk())
    for node in files[:1000]:
        forest.read(node)
    assert len(forest.fetched) <= 1000 + 512


def test_a_directory_is_listed_once_however_large_it_is() -> None:
    forest = Forest(*[100] * 20_000)
    files = list(forest.walk())
    for node in files[:5000]:
        forest.read(node)
    assert len(forest.fetched) > 4900
    assert forest.listed < 5600, "one listing, as far as the guess has come"
    assert len(forest.asked) < 10


def test_reading_here_and_there_in_a_large_directory_lists_little() -> None:
    forest = Forest(*[100] * 20_000)
    files = list(forest.walk())
    for step in range(200):
        forest.read(files[step * 7919 % len(files)])
    assert forest.listed <= 200, "one entry for each file"


def test_guessing_stops_where_nothing_can_be_fetched() -> None:
    forest = Forest(*[100] * 300)
    files = list(forest.walk())
    for node in files[:6]:
        forest.read(node)
    forest.ahead.missed()
    before = len(forest.fetched)
    for node in files[6:8]:
        forest.read(node)
    assert len(forest.fetched) == before


def test_big_files_are_left_out_and_others_limited_in_bytes() -> None:
    forest = Forest(*[BIG] * 100)
    for node in forest.walk():
        assert not forest.read(node)
    forest = Forest(*[1 << 20] * 500)
    for position, node in enumerate(forest.walk()):
        forest.read(node)
        assert len(forest.fetched) - position <= 33
