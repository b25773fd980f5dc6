"""Directory listings for the kernel: packed once, returned in pieces.

Owns: the order and the offsets of entries, and which listings are kept. Must not know: where entries come
from.
"""

import bisect
import itertools
import threading
from collections.abc import Callable, Sequence

from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.kernel.fuse import wire

__all__ = ["Listing", "Listings"]

_LOOKED_UP = len(wire.no_entry())


class Listing:
    """A packed directory: entries for READDIRPLUS, from which those for READDIR are cut.

    The offset of an entry is ``base`` plus the number of the next entry.
    """

    __slots__ = ("_base", "_ends", "_packed")

    def __init__(self, items: Sequence[bytes], base: int) -> None:
        self._packed = b"".join(items)
        self._ends = list(itertools.accumulate(map(len, items), initial=0))
        self._base = base

    def __len__(self) -> int:
        return len(self._ends) - 1

    def plus(self, offset: int, size: int) -> bytes:
        """Whole entries from ``offset`` on, at most ``size`` bytes, for READDIRPLUS."""
        position = min(max(offset - self._base, 0), len(self))
        start = self._ends[position]
        last = bisect.bisect_right(self._ends, start + size) - 1
        return self._packed[start : self._ends[last]]

    def plain(self, offset: int, size: int) -> bytes:
        """The same for READDIR."""
        pieces = []
        for position in range(min(max(offset - self._base, 0), len(self)), len(self)):
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
        self._kept: LeastRecentlyUsed[tuple[int, int], Listing] = LeastRecentlyUsed(limit, len)

    def get(self, key: tuple[int, int], make: Callable[[], Listing]) -> Listing:
        """The listing kept under ``key``, made now if necessary."""
        with self._lock:
            listing = self._kept.get(key)
            if listing is not None:
                return listing
        listing = make()
        with self._lock:
            self._kept.put(key, listing)
        return listing
