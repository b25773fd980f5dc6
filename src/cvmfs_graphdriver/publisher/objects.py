"""From bytes to stored objects: chunked, compressed, hashed and stored on all cores.

Owns: the pipeline's width, its memory limit, and which pieces a file is cut into (CernVM-FS format
reference, sections 1.4, 1.5 and 5). Must not know: paths, catalogs.

The one thread that reads the source hands whole pieces to a pool; compression, hashing and writing release
the interpreter's lock. What is under way is bounded in bytes, so memory does not grow with the source.
"""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage import Storage
from cvmfs_graphdriver.publisher.tree_entry import ContentReader
from cvmfs_graphdriver.repository.chunking import ChunkDetector
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import Chunk

__all__ = ["ObjectWriter", "PendingContent", "StoredContent"]

_READ = 1 << 20
_IN_FLIGHT = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredContent:
    """Where a file's bytes are: one object, or chunks (then ``digest`` is None)."""

    size: int
    digest: Digest | None
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class PendingContent:
    """The same, while it is being stored."""

    size: int
    offsets: tuple[int, ...]
    pieces: tuple[Future[Digest], ...]

    def result(self) -> StoredContent:
        """Wait for it. Raises StorageError."""
        digests = [piece.result() for piece in self.pieces]
        if len(digests) == 1:
            return StoredContent(self.size, digests[0], ())
        ends = (*self.offsets[1:], self.size)
        chunks = tuple(
            Chunk(offset, end - offset, digest)
            for offset, end, digest in zip(self.offsets, ends, digests, strict=True)
        )
        return StoredContent(self.size, None, chunks)


class ObjectWriter:
    """Stores content; for one source thread."""

    def __init__(self, storage: Storage, options: RepositoryOptions) -> None:
        self._storage = storage
        self._options = options
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="store")
        self._room = _Room(_IN_FLIGHT)
        self._counting = threading.Lock()
        self.bytes_new = 0
        self.objects_new = 0
        self.objects_known = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def store(self, reader: ContentReader) -> PendingContent:
        """Take in a file's bytes to their end."""
        sizes = self._options.chunking
        if sizes is None:
            return self._store_whole(reader)
        detector = ChunkDetector(sizes)
        offsets, pieces = [0], []
        piece = bytearray()
        total = 0
        while data := reader.read(_READ):
            start = total
            total += len(data)
            taken = 0
            for cut in detector.feed(data):
                piece += data[taken : cut - start]
                taken = cut - start
                pieces.append(self._submit(bytes(piece), Suffix.PARTIAL))
                offsets.append(cut)
                piece.clear()
            piece += data[taken:]
        suffix = Suffix.PARTIAL if pieces else Suffix.NONE
        pieces.append(self._submit(bytes(piece), suffix))
        return PendingContent(total, tuple(offsets), tuple(pieces))

    def _store_whole(self, reader: ContentReader) -> PendingContent:
        data = bytearray()
        while more := reader.read(_READ):
            data += more
        return PendingContent(len(data), (0,), (self._submit(bytes(data), Suffix.NONE),))

    def put(self, data: bytes, suffix: Suffix) -> Digest:
        """Store one object of the repository's own (catalog, history …), always compressed by zlib."""
        stored = compress(data, engine=self._options.engine)
        return self._put(stored, suffix)

    def _submit(self, data: bytes, suffix: Suffix) -> Future[Digest]:
        self._room.enter(len(data))
        try:
            return self._pool.submit(self._work, data, suffix)
        except BaseException:
            self._room.leave(len(data))
            raise

    def _work(self, data: bytes, suffix: Suffix) -> Digest:
        try:
            return self._put(compress(data, self._options.compression, self._options.engine), suffix)
        finally:
            self._room.leave(len(data))

    def _put(self, stored: bytes, suffix: Suffix) -> Digest:
        name = ObjectName(Digest.of(stored, self._options.algorithm), suffix)
        known = self._storage.has(name.path)
        if not known:
            self._storage.put(name.path, stored)
        with self._counting:
            if known:
                self.objects_known += 1
            else:
                self.objects_new += 1
                self.bytes_new += len(stored)
        return name.digest


class _Room:
    """Lets in as many bytes at once as there is room for; one that is bigger than the room goes alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changed = threading.Condition()

    def enter(self, amount: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + amount <= self._size)
            self._used += amount

    def leave(self, amount: int) -> None:
        with self._changed:
            self._used -= amount
            self._changed.notify()
