"""An open file: reading bytes of a whole object or of chunks.

Owns: which chunk holds which byte. Must not know: catalogs, FUSE. Chunks are fetched when they are first
read.
"""

import bisect
import os
import threading
from collections.abc import Callable, Sequence

from cvmfs_graphdriver.client.errors import ClientError
from cvmfs_graphdriver.repository.entry import Chunk

__all__ = ["OpenFile"]


class OpenFile:
    """Content of one regular file; ``pread`` may be called by several threads at once."""

    def __init__(
        self, chunks: Sequence[Chunk], fetch: Callable[[Chunk], int], descriptor: int | None
    ) -> None:
        self._chunks = chunks
        self._fetch = fetch
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}

    def fileno(self) -> int:
        """The descriptor of the whole content. Raises ClientError: a chunked file has none."""
        if self._descriptor is None:
            raise ClientError("a chunked file has no single descriptor")
        return self._descriptor

    @property
    def is_whole(self) -> bool:
        """Whether there is one descriptor with the whole content."""
        return self._descriptor is not None

    def pread(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; fewer only at the end. Raises what a fetch raises."""
        if self._descriptor is not None:
            return os.pread(self._descriptor, size, offset)
        pieces = []
        index = bisect.bisect_right(self._chunks, offset, key=lambda chunk: chunk.offset) - 1
        while size > 0 and 0 <= index < len(self._chunks):
            chunk = self._chunks[index]
            within = offset - chunk.offset
            wanted = min(size, chunk.size - within)
            if wanted <= 0:
                break
            pieces.append(os.pread(self._chunk(index), wanted, within))
            size -= wanted
            offset += wanted
            index += 1
        return b"".join(pieces)

    def close(self) -> None:
        """Give all descriptors back."""
        with self._lock:
            descriptors = list(self._open.values())
            self._open.clear()
            if self._descriptor is not None:
                descriptors.append(self._descriptor)
                self._descriptor = None
        for descriptor in descriptors:
            os.close(descriptor)

    def _chunk(self, index: int) -> int:
        with self._lock:
            if index in self._open:
                return self._open[index]
        descriptor = self._fetch(self._chunks[index])
        with self._lock:
            if index in self._open:
                os.close(descriptor)
            else:
                self._open[index] = descriptor
            return self._open[index]
