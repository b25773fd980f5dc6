"""From streams of content to stored objects, on all cores.

Owns: which pieces a file is cut into (CernVM-FS format reference, section 5), how pieces are batched for
workers, and how much may be in flight. Must not know: paths, catalogs, how a piece is stored.

The threads that read sources hand pieces to worker processes. What is in flight is bounded, so memory does
not grow with the source. Small sources are stored without workers, since starting one would take as long.
"""

import itertools
import os
import queue
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.kernel.memory.heap import keep_freed_memory
from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.ingest.worker import Form, Piece, Stored, Worker, store
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.interface import ContentReader, Storage
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.repository.catalog.entry import Chunk, Compression
from cvmfs_graphdriver.repository.chunking import ChunkDetector
from cvmfs_graphdriver.repository.compression import Engine, new_compressor
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix

__all__ = ["ObjectWriter", "PendingContent", "StoreMark", "StoredContent"]

_READ = 1 << 20
_BATCH_BYTES, _BATCH_PIECES = 1 << 20, 256
_UNDER_WAY = 48 << 20
_EARLY_FLUSH = 64 << 20
_ADOPTED = 1024
_OVERHEAD = 512  # what a piece costs besides its bytes
_WORTH_WORKERS = 8 << 20
_MOST_WORKERS = 8
_GIVEN_UP = "storing was aborted"
_RECOMPRESSED = {Suffix.CERTIFICATE, Suffix.METAINFO}  # by a replication: contents.is_replicable
_IN_MEMORY = 16 << 20  # a bigger object is compressed as it comes, without workers


@dataclass(frozen=True, slots=True)
class StoredContent:
    """Where a file's bytes are stored: in one object, or in chunks (then ``digest`` is None)."""

    size: int
    digest: Digest | None
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class StoreMark:
    """How much a writer had stored at some point, to which it can be rolled back."""

    new: int = 0
    bytes_new: int = 0
    objects_new: int = 0
    objects_known: int = 0


class _Batch:
    """Pieces that are sent to a worker together."""

    __slots__ = ("done", "error", "pieces", "results", "size")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0
        self.done = threading.Event()
        self.results: list[Stored] = []
        self.error: StorageError | None = None

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.size += piece.size + _OVERHEAD

    def finish(self, results: list[Stored]) -> None:
        self.results = results
        self.pieces.clear()
        self.done.set()

    def fail(self, error: StorageError) -> None:
        self.error = error
        self.pieces.clear()
        self.done.set()


class PendingContent:
    """A file's content while it is being stored."""

    __slots__ = ("_offsets", "_places", "_size", "_writer")

    def __init__(
        self, writer: "ObjectWriter", size: int, offsets: tuple[int, ...], places: list[tuple[_Batch, int]]
    ) -> None:
        self._writer = writer
        self._size = size
        self._offsets = offsets
        self._places = places

    def result(self) -> StoredContent:
        """Wait until it is stored. Raises StorageError."""
        digests = [self._writer.wait(batch)[number].digest for batch, number in self._places]
        if len(digests) == 1:
            return StoredContent(self._size, digests[0], ())
        ends = (*self._offsets[1:], self._size)
        chunks = tuple(
            Chunk(offset, end - offset, digest)
            for offset, end, digest in zip(self._offsets, ends, digests, strict=True)
        )
        return StoredContent(self._size, None, chunks)


class ObjectWriter:
    """Stores content; usable by any number of threads, each with sources of its own."""

    def __init__(self, storage: Storage, options: RepositoryOptions) -> None:
        self._storage = storage
        self._chunking = options.chunking
        self._form = Form(options.algorithm, options.compression, options.engine)
        self._own_form = Form(options.algorithm, Compression.ZLIB, options.engine)
        self._changed = threading.Condition()
        self._under_way = 0
        self._batch = _Batch()
        self._seen = 0 if storage.parallel == 1 else _WORTH_WORKERS
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._ended = False
        self._flusher: threading.Thread | None = None
        self._flushed = 0
        self._new = (
            bytearray()
        )  # digest and suffix letter of each new object, compact since there may be millions
        self.bytes_new = 0
        self.objects_new = 0
        self.objects_known = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._batch.fail(StorageError(_GIVEN_UP))
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        if self._flusher is not None:
            self._flusher.join()

    # Storing

    def store(self, reader: ContentReader) -> PendingContent:
        """Read a file's bytes to their end and store them."""
        if self._chunking is None:
            return self._store_whole(reader)
        head = _read(reader, self._chunking.minimum + 1)
        if len(head) <= self._chunking.minimum:
            return PendingContent(self, len(head), (0,), [self._add(Piece.of(head, Suffix.NONE))])
        detector = ChunkDetector(self._chunking)
        offsets, places = [0], []
        parts: list[bytes | memoryview] = []
        total = 0
        data = head
        while data:
            rest, at = memoryview(data), total
            for cut in detector.feed(data):
                parts.append(rest[: cut - at])
                rest, at = rest[cut - at :], cut
                places.append(self._add(Piece(parts, cut - offsets[-1], Suffix.PARTIAL)))
                offsets.append(cut)
                parts = []
            parts.append(rest)
            total += len(data)
            data = reader.read(_READ)
        suffix = Suffix.PARTIAL if places else Suffix.NONE
        places.append(self._add(Piece(parts, total - offsets[-1], suffix)))
        return PendingContent(self, total, tuple(offsets), places)

    def put(self, data: bytes, suffix: Suffix) -> Digest:
        """Store one object of the repository's own (catalog, history …), always as a zlib stream."""
        form = replace(self._own_form, engine=Engine.ZLIB) if suffix in _RECOMPRESSED else self._own_form
        stored = store(self._storage, form, Piece.of(data, suffix))
        self._account([stored], [suffix])
        return stored.digest

    def adopt(self, spooled: "ObjectWriter", spool: LocalStorage) -> None:
        """Move what another writer stored in a spool of this one's storage. Raises StorageError."""

        def move(name: ObjectName) -> Stored:
            size, there = spool.size(name.path), self._storage.size(name.path)
            if size is not None and there != size:  # missing, or truncated by a crash of the machine
                self._storage.adopt(spool, name.path)
            return Stored(name.digest, size or 0, there is None and size is not None)

        names = spooled.new()
        with ThreadPoolExecutor(self._storage.parallel, "adopt") as movers:
            while batch := list(itertools.islice(names, _ADOPTED)):
                self._account(list(movers.map(move, batch)), [name.suffix for name in batch])

    def new(self, since: int = 0) -> Iterator[ObjectName]:
        """The objects that were new when this writer stored them, except the first ``since`` bytes of it."""
        step = self._form.algorithm.size + 1
        for at in range(since, len(self._new), step):
            digest = Digest(self._form.algorithm, bytes(self._new[at : at + step - 1]))
            yield ObjectName(digest, Suffix(chr(self._new[at + step - 1]).strip()))

    def mark(self) -> StoreMark:
        """How much has been stored so far. Not to be called while something is being stored."""
        return StoreMark(len(self._new), self.bytes_new, self.objects_new, self.objects_known)

    def discard(self, since: StoreMark = StoreMark()) -> None:
        """Delete every object that was new since then.

        Waits for what is in flight; not to be called while others still store.
        """
        with self._changed:
            while self._under_way and not self._ended:
                self._dispatch(self._batch)
                self._changed.wait()
        self._storage.delete(name.path for name in self.new(since.new))
        del self._new[since.new :]
        self.bytes_new, self.objects_new = since.bytes_new, since.objects_new
        self.objects_known = since.objects_known

    def _store_whole(self, reader: ContentReader) -> PendingContent:
        head = _read(reader, _IN_MEMORY + 1)
        if len(head) <= _IN_MEMORY:
            return PendingContent(self, len(head), (0,), [self._add(Piece.of(head, Suffix.NONE))])
        size = len(head)
        with tempfile.NamedTemporaryFile(prefix="object-") as file:
            try:
                compressor = new_compressor(self._form.compression, self._form.engine)
                hasher = self._form.algorithm.new()
                data, more = head, b""
                while data:
                    more = _read(reader, _READ)
                    size += len(more)
                    stored = compressor.compress(data) + (b"" if more else compressor.flush())
                    hasher.update(stored)
                    file.write(stored)
                    data = more
                file.flush()
            except OSError as error:
                raise StorageError(
                    f"cannot write to the temporary file {file.name}: {error.strerror}; "
                    "free space there or set TMPDIR"
                ) from error
            digest = Digest(self._form.algorithm, hasher.digest())
            name = ObjectName(digest, Suffix.NONE).path
            there = self._storage.size(name)
            if there != file.tell():
                self._storage.put_file(name, Path(file.name))
            batch = _Batch()
            batch.finish([Stored(digest, file.tell(), there is None)])
        self._account(batch.results, [Suffix.NONE])
        return PendingContent(self, size, (0,), [(batch, 0)])

    # Batches

    def _add(self, piece: Piece) -> tuple[_Batch, int]:
        """Take over a piece; returns where its result will be."""
        cost = piece.size + _OVERHEAD
        with self._changed:
            self._seen += cost
            if self._seen >= _WORTH_WORKERS:
                return self._hand_out(piece, cost)
        batch = _Batch()
        stored = [store(self._storage, self._form, piece)]
        self._account(stored, [piece.suffix])
        batch.finish(stored)
        return batch, 0

    def _hand_out(self, piece: Piece, cost: int) -> tuple[_Batch, int]:
        if not self._threads:
            self._start()
        while self._under_way and self._under_way + cost > _UNDER_WAY:
            self._dispatch(self._batch)
            self._changed.wait()
        self._under_way += cost
        if cost > _BATCH_BYTES // 2:
            batch = _Batch()
            batch.add(piece)
            self._queue.put(batch)
            return batch, 0
        batch = self._batch
        batch.add(piece)
        place = batch, len(batch.pieces) - 1
        if batch.size >= _BATCH_BYTES or len(batch.pieces) >= _BATCH_PIECES:
            self._dispatch(batch)
        return place

    def _dispatch(self, batch: _Batch) -> None:
        """Send off the batch that is being filled; any other one is already in flight."""
        if batch is self._batch and batch.pieces:
            self._batch = _Batch()
            self._queue.put(batch)

    def wait(self, batch: _Batch) -> list[Stored]:
        """Wait for a batch and return its results. Raises StorageError."""
        if not batch.done.is_set():
            with self._changed:
                self._dispatch(batch)
            batch.done.wait()
        if batch.error is not None:
            raise batch.error
        return batch.results

    # Workers

    def _start(self) -> None:
        keep_freed_memory()
        count = min(os.cpu_count() or 1, _MOST_WORKERS)
        for number in range(count):
            thread = threading.Thread(target=self._serve, name=f"store-{number}")
            thread.start()
            self._threads.append(thread)

    def _serve(self) -> None:
        """The body of a thread: pass batches to its own worker."""
        worker = None
        while (batch := self._queue.get()) is not None:
            try:
                if self._ended:
                    raise StorageError(_GIVEN_UP)
                worker = worker or Worker(self._storage, self._form)
                stored = worker.store(batch.pieces)
            except StorageError as error:
                batch.fail(error)
            else:
                self._account(stored, [piece.suffix for piece in batch.pieces])
                batch.finish(stored)
            with self._changed:
                self._under_way -= batch.size
                self._changed.notify_all()
        if worker is not None:
            worker.close()

    def _account(self, stored: Sequence[Stored], suffixes: Sequence[Suffix]) -> None:
        with self._changed:
            for one, suffix in zip(stored, suffixes, strict=True):
                if one.new:
                    self.objects_new += 1
                    self.bytes_new += one.size
                    self._new += one.digest.raw + (suffix or " ").encode()
                else:
                    self.objects_known += 1
            is_idle = self._flusher is None or not self._flusher.is_alive()
            if is_idle and self.bytes_new - self._flushed >= _EARLY_FLUSH:
                self._flushed = self.bytes_new
                self._flusher = threading.Thread(target=self._flush_early, name="flush")
                self._flusher.start()

    def _flush_early(self) -> None:
        """Let the disk start early, so that little is left to wait for before the manifest is written."""
        with suppress(StorageError):  # the flush at the end will report it
            self._storage.flush()


def _read(reader: ContentReader, size: int) -> bytes:
    """``size`` bytes, fewer only at the end."""
    data = reader.read(size)
    if not data or len(data) == size:
        return data
    parts = [data]
    left = size - len(data)
    while left and (data := reader.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts) if len(parts) > 1 else parts[0]
