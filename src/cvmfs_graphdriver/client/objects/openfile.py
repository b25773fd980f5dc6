"""An open file: reading bytes of a single object or of chunks.

Owns: which piece holds which byte, which pieces are open, reading ahead. Must not know: catalogs, FUSE, where
objects come from. Pieces are fetched when they are first read, and again if they turn out to be truncated in
the cache.
"""

import bisect
import os
import threading
from collections.abc import Callable, Sequence

from cvmfs_graphdriver.client.errors import CacheError, ClientError
from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.client.objects.descriptor import Descriptor
from cvmfs_graphdriver.repository.catalog.entry import Chunk

__all__ = ["OpenFile"]

_HELD = 8
_AHEAD = 2


class OpenFile:
    """The content of one regular file; several threads may read at the same time.

    ``pieces`` follow one another without gaps; ``fetch`` returns a descriptor of one, which then belongs to
    this file; ``prefetch`` begins to fetch one without waiting.
    """

    def __init__(
        self, pieces: Sequence[Chunk], fetch: Callable[[Chunk], int], prefetch: Callable[[Chunk], None]
    ) -> None:
        self._pieces = pieces
        self._offsets = [piece.offset for piece in pieces]
        self._size = pieces[-1].offset + pieces[-1].size if pieces else 0
        self._fetch = fetch
        self._prefetch = prefetch
        self._lock = threading.Lock()
        self._held: LeastRecentlyUsed[int, Descriptor] = LeastRecentlyUsed(_HELD)
        self._position = 0
        self._ahead = 0

    @property
    def is_whole(self) -> bool:
        """Whether one descriptor has the whole content; an empty file has none."""
        return len(self._pieces) == 1

    def fileno(self) -> int:
        """The descriptor of the whole content, owned by this file. Raises ClientError: there is none."""
        if not self.is_whole:
            raise ClientError("a file of several chunks has no single descriptor")
        return self._open(0).number

    def pread(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; fewer only at the end. Raises as ``readinto`` does."""
        buffer = bytearray(max(0, min(size, self._size - offset)))
        return bytes(memoryview(buffer)[: self.readinto(memoryview(buffer), offset)])

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; returns the number of bytes, fewer only at the end.

        Raises what ``fetch`` raises; CacheError: a piece is truncated in the cache even after it was fetched
        again.
        """
        index = first = bisect.bisect_right(self._offsets, offset) - 1
        if index < 0:
            return 0
        filled = 0
        while index < len(self._pieces) and filled < len(buffer):
            filled += self._read(index, buffer[filled:], offset + filled)
            index += 1
        if len(self._pieces) > 1:
            self._read_ahead(max(first, index - 1), offset, offset + filled)
        return filled

    def fetch_all(self) -> None:
        """Bring the whole content into the cache. Raises what ``fetch`` raises."""
        for index in range(len(self._pieces)):
            self._open(index)

    @property
    def is_evicted(self) -> bool:
        """Whether an open piece was evicted, so that it takes up disk space only because it is open here."""
        with self._lock:
            held = [descriptor for _, descriptor in self._held]
        return any(os.fstat(each.number).st_nlink == 0 for each in held)

    def close(self) -> None:
        """Close all descriptors."""
        with self._lock:
            self._held.clear()

    def _read(self, index: int, buffer: memoryview, offset: int) -> int:
        """Read from one piece; ``offset`` is that in the file."""
        piece = self._pieces[index]
        within = offset - piece.offset
        wanted = min(len(buffer), piece.size - within)
        if wanted <= 0:
            return 0
        for _ in range(2):
            held = self._open(index)  # the reference keeps it open
            if os.preadv(held.number, [buffer[:wanted]], within) == wanted:
                return wanted
            with self._lock:
                if self._held.peek(index) is held:
                    self._held.pop(index)
        raise CacheError(f"object {piece.digest} is truncated in the cache, even after it was fetched again")

    def _open(self, index: int) -> Descriptor:
        with self._lock:
            held = self._held.get(index)
            if held is not None:
                return held
        opened = Descriptor(self._fetch(self._pieces[index]))
        with self._lock:
            held = self._held.get(index)
            if held is not None:
                return held
            self._held.put(index, opened)
        return opened

    def _read_ahead(self, index: int, start: int, end: int) -> None:
        """Prefetch the next pieces for a reader who continues where the last read ended."""
        sequential = start == self._position
        self._position = end
        if not sequential or index < 1:
            return
        first = max(index, self._ahead) + 1
        last = min(index + _AHEAD, len(self._pieces) - 1)
        for following in range(first, last + 1):
            self._ahead = following
            self._prefetch(self._pieces[following])
