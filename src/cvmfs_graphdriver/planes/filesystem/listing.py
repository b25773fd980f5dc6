"""Directory listings for the kernel: packed a piece at a time, returned in smaller pieces.

Owns: how entries are packed together, and which pieces are kept. Must not know: where entries come from. An
entry's offset is chosen by whoever makes it, and grows within a directory; so a directory of any size can be
continued at any entry without what comes before it.
"""

import bisect
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.kernel.fuse import wire

__all__ = ["Directory", "Item", "Listing", "Listings"]

Directory = tuple[int, int]
"""A number, and the revision for those that revisions share."""

_LOOKED_UP = len(wire.no_entry())


class Item(NamedTuple):
    """An entry, packed for READDIRPLUS, and the offset behind it."""

    packed: bytes
    following: int


class Listing:
    """The entries of a directory behind the offset ``start``, all or the first of them.

    Those for READDIR are cut from those for READDIRPLUS. ``is_last`` says that no more follow.
    """

    __slots__ = ("_ends", "_following", "_packed", "directory", "is_last", "start")

    def __init__(self, directory: Directory, start: int, items: Sequence[Item], *, is_last: bool) -> None:
        self.directory = directory
        self.start = start
        self.is_last = is_last
        self._packed = b"".join([item.packed for item in items])
        self._ends = list(itertools.accumulate((len(item.packed) for item in items), initial=0))
        self._following = [item.following for item in items]

    def __len__(self) -> int:
        return len(self._following)

    def has(self, offset: int) -> bool:
        """Whether what follows ``offset`` is here."""
        return self.start <= offset and (self.is_last or offset < self._following[-1])

    def plus(self, offset: int, size: int) -> bytes:
        """Whole entries behind ``offset``, at most ``size`` bytes, for READDIRPLUS."""
        start = self._ends[bisect.bisect_right(self._following, offset)]
        last = bisect.bisect_right(self._ends, start + size) - 1
        return self._packed[start : self._ends[last]]

    def plain(self, offset: int, size: int) -> bytes:
        """The same for READDIR."""
        pieces = []
        for position in range(bisect.bisect_right(self._following, offset), len(self)):
            piece = self._packed[self._ends[position] + _LOOKED_UP : self._ends[position + 1]]
            size -= len(piece)
            if size < 0:
                break
            pieces.append(piece)
        return b"".join(pieces)


class Listings:
    """The most recently used listings, with ``limit`` entries in all; safe for any number of threads."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._kept: LeastRecentlyUsed[tuple[Directory, int], Listing] = LeastRecentlyUsed(
            limit, lambda listing: len(listing) + 1
        )
        self._starts: dict[Directory, list[int]] = {}
        """The offsets at which those that are kept of a directory begin."""

    def get(self, directory: Directory, offset: int, make: Callable[[], Listing]) -> Listing:
        """A listing that has what follows ``offset``; ``make`` makes one that starts there."""
        with self._lock:
            listing = self._find(directory, offset)
        if listing is None:
            listing = make()
            with self._lock:
                self._keep(listing)
        return listing

    def _find(self, directory: Directory, offset: int) -> Listing | None:
        starts = self._starts.get(directory, ())
        position = bisect.bisect_right(starts, offset)
        listing = self._kept.get((directory, starts[position - 1])) if position else None
        return listing if listing is not None and listing.has(offset) else None

    def _keep(self, listing: Listing) -> None:
        if self._kept.peek((listing.directory, listing.start)) is None:
            bisect.insort(self._starts.setdefault(listing.directory, []), listing.start)
        for dropped in self._kept.put((listing.directory, listing.start), listing):
            starts = self._starts[dropped.directory]
            starts.remove(dropped.start)
            if not starts:
                del self._starts[dropped.directory]
