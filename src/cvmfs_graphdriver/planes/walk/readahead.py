"""Guesses which files will be read next from those that were read.

Owns: the guess. A program that walks a tree (tar, cp, grep) reads files in the order of listings, and enters
directories as it comes to them; if files were fetched one by one, it would wait for the network each time. A
guess needs several right ones before it, and goes no further up in the tree than the reader has been, so that
a program that reads here and there causes no traffic. Must not know: how files are fetched.

Not every guessed file has to be reported when it is read: one report stands for those before it. Of a
directory nothing is kept but the row of the file that was read last, and a walk holds the piece of each
listing that it is in, so that directories may have any size. For one thread at a time.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.client.tree.revision import Node

__all__ = ["ReadAhead"]

_START = 3
"""The number of files that must be read in order before others are fetched ahead."""
_WALK = 16
"""From this number on it counts as a walk, and the guess enters and leaves directories."""
_FILES = 512
_BYTES = 32 << 20
"""The most that may have been guessed and not been read yet."""
_BIG = 8 << 20
"""Larger files are not guessed."""
_DIRECTORIES = 64
_DEPTH = 64
"""How far below the directory that is read a guess goes."""
_REMEMBERED = 4096


class _Children(Protocol):
    """Lists a directory, from behind a row on."""

    def __call__(self, directory: Node, after: int = 0) -> Iterator[Node]: ...


class _Walk:
    """What one reader is expected to read, and how far it has come."""

    def __init__(self, files: Iterator[Node]) -> None:
        self._files = files
        self._ahead: deque[tuple[int, int]] = deque()  # inode and size
        self._bytes = 0
        self._next = next(files, None)

    def read(self, inode: int) -> list[int]:
        """The file was read, and so were those before it; returns all of them."""
        passed: list[int] = []
        while self._ahead and (not passed or passed[-1] != inode):
            one, size = self._ahead.popleft()
            self._bytes -= size
            passed.append(one)
        if self._next is not None and self._next.inode == inode:
            self._next = next(self._files, None)
            passed.append(inode)
        return passed

    def more(self, window: int) -> list[Node]:
        """More files, so that ``window`` are ahead of the reader; none while enough are."""
        if len(self._ahead) > window // 2:
            return []
        found: list[Node] = []
        while self._next is not None and len(self._ahead) < window and self._bytes < _BYTES:
            node = self._next
            found.append(node)
            self._ahead.append((node.inode, node.entry.size))
            self._bytes += node.entry.size
            self._next = next(self._files, None)
        return found

    @property
    def next(self) -> Node | None:
        """The first file that has not been guessed yet."""
        return self._next


class ReadAhead:
    """Guesses for one tree. ``children`` lists a directory, ``node`` finds a node by its inode."""

    def __init__(self, children: _Children, node: Callable[[int], Node]) -> None:
        self._children = children
        self._node = node
        self._last: LeastRecentlyUsed[int, int] = LeastRecentlyUsed(_DIRECTORIES)
        """The row of the file that was read last in a directory."""
        self._expected: dict[int, _Walk] = {}
        self._streak = 0
        self._previous = 0
        self._top = b""
        """The deepest directory that contains all files that were read in order."""

    def opened(self, node: Node) -> Sequence[Node]:
        """A file was opened; returns the files to fetch."""
        walk = self._expected.get(node.inode)
        if walk is not None:
            passed = walk.read(node.inode)
            for inode in passed:
                self._expected.pop(inode, None)
            self._follow(node, len(passed))
        elif self._is_next(node):
            self._follow(node, 1)
            if self._streak < _START:
                return ()
            walk = _Walk(self._files_behind(node, deep=self._streak >= _WALK))
        else:
            return ()
        files = walk.more(min(_FILES, 2 * self._streak))
        self._expect(walk, files)
        return files

    def missed(self) -> None:
        """The returned files cannot be fetched: stop guessing for a while."""
        self._streak = 0
        self._expected.clear()

    def _expect(self, walk: _Walk, files: Sequence[Node]) -> None:
        if len(self._expected) > _REMEMBERED:
            self._expected.clear()
        for node in files:
            self._expected[node.inode] = walk
        if walk.next is not None:
            self._expected[walk.next.inode] = walk

    def _follow(self, node: Node, count: int) -> None:
        """``count`` files were read in order, this one the last."""
        directory = node.path.rpartition(b"/")[0]
        if not self._streak:
            self._top = directory
        while self._top and not (directory + b"/").startswith(self._top + b"/"):
            self._top = self._top.rpartition(b"/")[0]
        self._streak += count
        self._last.put(node.parent_inode, node.entry.row)

    def _is_next(self, node: Node) -> bool:
        """Whether a file is the first of its directory, or follows the one that was read last there."""
        last = self._last.get(node.parent_inode)
        if last is None:
            previous, self._previous = self._previous, node.parent_inode
            if self._streak < _WALK and previous != node.parent_inode:
                return False
            last = 0
        self._last.put(node.parent_inode, node.entry.row)
        following = next(filter(_is_guessed, self._children(self._node(node.parent_inode), last)), None)
        if following is not None and following.inode == node.inode:
            return True
        self._streak = 0
        return False

    def _files_behind(self, node: Node, *, deep: bool) -> Iterator[Node]:
        """The files that follow ``node`` in a walk; only those in its directory unless ``deep``."""
        while True:
            directory = self._node(node.parent_inode)
            yield from self._files_in(self._children(directory, node.entry.row), deep=deep)
            if (
                not deep
                or not (directory.path + b"/").startswith(self._top + b"/")
                or (directory.path == self._top)
            ):
                return
            node = directory

    def _files_in(self, nodes: Iterator[Node], *, deep: bool) -> Iterator[Node]:
        stack = [nodes]
        while stack:
            for node in stack[-1]:
                if _is_guessed(node):
                    yield node
                elif deep and node.entry.is_directory and len(stack) < _DEPTH:
                    stack.append(self._children(node))
                    break
            else:
                stack.pop()


def _is_guessed(node: Node) -> bool:
    return node.entry.is_regular and 0 < node.entry.size <= _BIG
