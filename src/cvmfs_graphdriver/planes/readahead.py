"""Which files will be read next, guessed from those that were read.

Owns: the guess. Who walks a tree (tar, cp, grep) reads the files of each directory in the order in which they
were listed; fetching them one by one, he would wait for the network each time. A guess needs some right
ones before it, so that a program that reads here and there causes no traffic. Must not know: how anything is
fetched.

It works without a lock: what two threads do at once is at worst a worse guess.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from cvmfs_graphdriver.client.revision import Node

__all__ = ["ReadAhead"]

_START = 3
"""So many files must have been read in order before others are fetched ahead."""
_WALK = 16
"""From so many on, somebody walks the tree: then the files of a directory are fetched when it is listed."""
_WINDOW = 48
_BIG = 1 << 20
_BYTES = 16 << 20
_DIRECTORIES = 16
_FILES = 4096


class _Directory:
    """The small files of a directory in the order of its listing, the last one read, and how far we are."""

    __slots__ = ("ahead", "files", "last", "positions")

    def __init__(self, children: Sequence[Node]) -> None:
        self.files = [child for child in children if child.entry.is_regular and 0 < child.entry.size <= _BIG][
            :_FILES
        ]
        self.positions = {node.inode: position for position, node in enumerate(self.files)}
        self.last = -1
        self.ahead = 0

    def take(self, start: int, count: int) -> Sequence[Node]:
        """At most ``count`` files, and a number of bytes, from ``start`` on that were not taken yet."""
        begin = max(start, self.ahead)
        end, size = begin, 0
        while end < min(len(self.files), start + count) and size < _BYTES:
            size += self.files[end].entry.size
            end += 1
        self.ahead = max(self.ahead, end)
        return self.files[begin:end]


class ReadAhead:
    """The guesses for one tree. ``children`` lists a directory by its inode."""

    def __init__(self, children: Callable[[int], Sequence[Node]]) -> None:
        self._children = children
        self._directories: OrderedDict[int, _Directory] = OrderedDict()
        self._streak = 0
        self._previous = 0

    def listed(self, directory: int, children: Sequence[Node]) -> Sequence[Node]:
        """A directory was listed; returns the files to be fetched."""
        known = self._remember(directory, children)
        return known.take(0, _WINDOW) if self._streak >= _WALK else ()

    def opened(self, node: Node) -> Sequence[Node]:
        """A file was opened; returns the files to be fetched."""
        directory = self._directories.get(node.parent_inode)
        if directory is None:
            previous, self._previous = self._previous, node.parent_inode
            if self._streak < _WALK and previous != node.parent_inode:
                return ()
            directory = self._remember(node.parent_inode, self._children(node.parent_inode))
        position = directory.positions.get(node.inode)
        if position is None:
            return ()
        self._streak = self._streak + 1 if position == directory.last + 1 else 0
        directory.last = position
        if self._streak < _START:
            return ()
        window = min(_WINDOW, 2 * self._streak)
        if directory.ahead - position > window // 2:
            return ()
        return directory.take(position + 1, window)

    def missed(self) -> None:
        """Nothing that was returned had to be fetched: there is no need to guess for a while."""
        self._streak = 0

    def _remember(self, inode: int, children: Sequence[Node]) -> _Directory:
        directory = self._directories[inode] = _Directory(children)
        while len(self._directories) > _DIRECTORIES:
            self._directories.popitem(last=False)
        return directory
