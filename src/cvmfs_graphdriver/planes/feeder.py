"""Feeding the kernel ahead of who reads: files come into the cache, and into the page cache, unasked.

Owns: what becomes of a guess of ``readahead``: fetching, and handing small files to the kernel as soon as
they are there, so that reading them costs no message. Every sixteenth file stays to be asked for: that tells
how far the reader is. Must not know: how files are fetched, the wire.

The kernel may let us wait with a page until somebody's READ is answered; so what is handed to it is handed
by a thread that nobody waits for.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial

from cvmfs_graphdriver.client.background import Background
from cvmfs_graphdriver.client.revision import Node
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.planes.readahead import ReadAhead
from cvmfs_graphdriver.planes.tree import Tree

__all__ = ["Feeder", "Store"]

Store = Callable[[int, bytes], bool]
"""Gives the kernel the content of the file with an inode number; says whether it took it."""

_ASKED_FOR = 16
_SMALL = 128 << 10
_BACKLOG = 256


class Feeder:
    """Guesses and feeds; safe for any number of threads. ``tree`` gives the one that is shown now."""

    def __init__(self, tree: Callable[[], Tree], store: Store) -> None:
        self._tree = tree
        self._store = store
        self._guess = ReadAhead(self._children, lambda inode: tree().node(inode))
        self._guesser = Background(1, "read-ahead")
        self._storer = Background(1, "page cache")
        self._number = 0
        self._early: dict[int, list[tuple[Node, int]]] = {}
        """Files that the kernel does not know yet, with descriptors, by directory."""

    def opened(self, node: Node) -> None:
        """Somebody reads a file."""
        self._guesser.submit(lambda: self._follow(node))

    def listed(self, directory: int) -> None:
        """Somebody has listed a directory: now the kernel knows its files."""
        if directory in self._early:
            self._storer.submit(lambda: self._hand_over_all(directory))

    def close(self) -> None:
        """Feed nothing any more."""
        self._guesser.close()
        self._storer.close()
        for directory in tuple(self._early):
            self._drop(directory)

    def _children(self, node: Node) -> Sequence[Node]:
        return self._tree().children(node)

    def _follow(self, node: Node) -> None:
        try:
            nodes = self._guess.opened(node)
            tree = self._tree()
            if nodes and not sum([tree.prefetch(node, self._receiver(node)) for node in nodes]):
                self._guess.missed()
        except CvmfsGraphdriverError:
            self._guess.missed()  # who really reads there sees the error

    def _receiver(self, node: Node) -> Callable[[int], None]:
        self._number += 1
        if self._number % _ASKED_FOR == 0 or node.entry.size > _SMALL:
            return os.close
        return partial(self._receive, node)

    def _receive(self, node: Node, descriptor: int) -> None:
        if self._storer.waiting >= _BACKLOG:
            os.close(descriptor)
            return
        self._storer.submit(lambda: self._hand_over(node, descriptor))

    # The thread of the page cache

    def _hand_over(self, node: Node, descriptor: int) -> None:
        if self._offer(node, descriptor):
            os.close(descriptor)
            return
        # Nobody has listed its directory yet.
        self._early.setdefault(node.parent_inode, []).append((node, descriptor))
        while len(self._early) > _BACKLOG:
            self._drop(next(iter(self._early)))

    def _offer(self, node: Node, descriptor: int) -> bool:
        """Says whether the kernel knew the file."""
        data = os.pread(descriptor, node.entry.size, 0)
        return len(data) == node.entry.size and self._store(node.inode, data)

    def _hand_over_all(self, directory: int) -> None:
        for node, descriptor in self._early.get(directory, ()):
            self._offer(node, descriptor)
        self._drop(directory)

    def _drop(self, directory: int) -> None:
        for _, descriptor in self._early.pop(directory, ()):
            os.close(descriptor)
