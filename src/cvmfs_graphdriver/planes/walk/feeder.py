"""Feeding the kernel ahead of readers: files are brought into the cache and the page cache unasked.

Owns: acting on the guesses of ``readahead``: files are fetched, and small ones are passed to the kernel as
soon as they are there and the kernel knows them, so that reading them needs no request. The kernel knows them
when their directory has been listed. Every sixteenth file is withheld; the request for it shows how far the
reader is. Must not know: how files are fetched, how the kernel is given content.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from cvmfs_graphdriver.client.objects.background import Background
from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.planes.tree import Tree
from cvmfs_graphdriver.planes.walk.page_cache import Offer
from cvmfs_graphdriver.planes.walk.readahead import ReadAhead

__all__ = ["Feeder", "Pages"]

_ASKED_FOR = 16
_SMALL = 128 << 10
_EARLY = 4096
"""The most files that wait for their directory to be listed."""
_LISTED = 65536
_SETTLING = 0.25
"""Seconds that the listing of a directory waits for its files to be passed on, which saves requests."""
_BATCH = 64
_CATCHING_UP = 0.02
"""A reader who has caught up waits for ``_BATCH`` files, as long as some arrive within this time."""


class Pages(Protocol):
    """The kernel's page cache."""

    absent: Callable[[Collection[int]], None]
    """Called with offered files that are not in the client's cache."""

    def offer(self, files: Sequence[Offer]) -> None:
        """Give it the contents of files."""

    def settle(self, seconds: float) -> None:
        """Wait until it has what was offered, at most this long."""

    def close(self) -> None:
        """Stop giving it content."""


class Feeder:
    """Guesses and feeds; safe for any number of threads. ``tree`` returns the current tree."""

    def __init__(self, tree: Callable[[], Tree], pages: Pages) -> None:
        self._tree = tree
        self._pages = pages
        self._guess = ReadAhead(self._children, lambda inode: tree().node(inode))
        self._guesser = Background(1, "read-ahead")
        self._lock = threading.Lock()
        self._listed: set[int] = set()
        self._early: dict[int, list[Offer]] = {}
        """Files to offer when their directory has been listed, by directory."""
        self._early_count = 0
        self._given: set[int] = set()
        self._coming: set[int] = set()
        """Files that are being fetched."""
        self._awaited: set[int] = set()
        """Those of them that a reader has asked for meanwhile."""
        self._arrivals = 0
        self._target = 0
        """The number of arrivals that a reader waits for; 0 if nobody waits."""
        self._batch = threading.Condition(self._lock)
        self._all_cached = False
        """Whether nothing that was guessed lately had to be fetched."""
        pages.absent = lambda inodes: self._guesser.submit(lambda: self._fetch_absent(inodes))

    def opened(self, node: Node) -> None:
        """A file is being read. If it was about to be fetched unasked, may wait for some that follow.

        Otherwise a reader faster than the network would request one file after another as they arrive.
        """
        self._guesser.submit(lambda: self._follow(node))
        if node.inode in self._coming and self._wait_for_others(node):
            self._pages.settle(_CATCHING_UP)

    def listed(self, directory: int) -> None:
        """A directory has been listed to its end: now the kernel knows its files."""
        if self._hand_over(directory):
            self._pages.settle(_SETTLING)

    def take_given(self) -> Collection[int]:
        """The files that the kernel was given since the last call."""
        with self._lock:
            given, self._given = self._given, set()
        return given

    def close(self) -> None:
        """Stop feeding."""
        self._guesser.close()
        self._pages.close()

    def _children(self, directory: Node, after: int = 0) -> Iterator[Node]:
        return self._tree().children(directory, after)

    def _follow(self, node: Node) -> None:
        self._hand_over(node.parent_inode)  # a reader of one of its files has looked up the others, too
        try:
            nodes = self._guess.opened(node)
            if self._all_cached:
                self._seek(nodes)
            elif nodes:
                self._fetch(nodes)
        except CvmfsGraphdriverError:
            self._guess.missed()  # a reader will see the error

    def _seek(self, nodes: Sequence[Node]) -> None:
        """Give the kernel files that are probably in the client's cache; this thread does not look.

        Looking costs a visit to the disk for each, and several threads of another process do that at once.
        """
        tree = self._tree()
        files = []
        others = []
        for node in nodes:
            path = tree.cached_path(node)
            if path is None:
                others.append(node)
            else:
                given = self._is_due(node, path)
                files.append(Offer(node.inode, node.entry.size, path, given, is_sought=True))
        self._pages.offer(files)
        tree.prefetch(others, self._receive)

    def _fetch(self, nodes: Sequence[Node]) -> None:
        self._coming.update(node.inode for node in nodes if not node.entry.is_chunked)
        self._all_cached = not self._tree().prefetch(nodes, self._receive)

    def _fetch_absent(self, inodes: Collection[int]) -> None:
        with suppress(CvmfsGraphdriverError):  # a reader will see the error
            tree = self._tree()
            self._fetch([tree.node(inode) for inode in inodes])

    def _receive(self, node: Node, path: str) -> None:
        """A file has arrived in the client's cache."""
        if self._is_due(node, path):
            self._pages.offer((Offer(node.inode, node.entry.size, path),))

    def _is_due(self, node: Node, path: str) -> bool:
        """Whether to give the kernel a file, which is in ``path``; if it is too early, that is noted."""
        size = node.entry.size
        with self._lock:
            awaited = node.inode in self._awaited
            self._awaited.discard(node.inode)
            self._coming.discard(node.inode)
            self._arrivals += 1
            if self._target and self._arrivals >= self._target:
                self._batch.notify_all()
            if awaited or self._arrivals % _ASKED_FOR == 0 or size > _SMALL:
                return False  # to give the kernel a file that it has asked for would wait for our own reply
            if node.parent_inode not in self._listed:
                if self._early_count < _EARLY:
                    self._early.setdefault(node.parent_inode, []).append(Offer(node.inode, size, path))
                    self._early_count += 1
                return False
            self._given.add(node.inode)
            return True

    def _wait_for_others(self, node: Node) -> bool:
        """Wait for a file and some that follow; says whether they arrived."""
        with self._lock:
            self._coming.discard(node.inode)
            self._awaited.add(node.inode)
            target = self._target = max(self._target, self._arrivals + min(_BATCH, len(self._coming)))
            seen = -1
            while seen < self._arrivals < target:
                seen = self._arrivals
                self._batch.wait(_CATCHING_UP)
            if self._target <= target:
                self._target = 0
            self._awaited.discard(node.inode)
            return self._arrivals >= target

    def _hand_over(self, directory: int) -> bool:
        """Offer the files that waited for this directory; says whether there were any."""
        with self._lock:
            if len(self._listed) >= _LISTED:
                self._listed.clear()
            self._listed.add(directory)
            early = self._early.pop(directory, [])
            self._early_count -= len(early)
            self._given.update(file.inode for file in early)
        if early:
            self._pages.offer(early)
        return bool(early)
