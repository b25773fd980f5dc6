"""A process that turns pieces of content into stored objects, and the end of its pipe that hands them out.

Owns: one object's way from bytes to storage – compressed, hashed, put where it is missing (CernVM-FS format
reference, sections 1.4 and 1.5) – and the words that the two ends of the pipe exchange. Must not know: files,
paths, catalogs, what goes to which worker.

Processes and not threads, since what little Python does per object is enough to keep the other cores waiting
for the interpreter's lock. A worker ends when its pipe does, so it never outlives whoever started it.

A request is the number of pieces, for each its length and its suffix letter (0 for none), then all bytes.
The reply is a line of ``_REPLY`` for each, or one error: its text's length, then the text.
"""

import gc
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NamedTuple, Self

from cvmfs_graphdriver.kernel.child import start
from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.storage import Storage
from cvmfs_graphdriver.publisher.upstream import open_storage
from cvmfs_graphdriver.repository.compression import Engine, compress
from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import Compression

__all__ = ["Form", "Piece", "Stored", "Worker", "store"]

_COUNT = struct.Struct("<I")
_PIECE = struct.Struct("<QB")
_REPLY = struct.Struct("<B20sQ")
_ERROR = struct.Struct("<I")
_KNOWN, _NEW, _FAILED = 0, 1, 2
_ERROR_LIMIT = 4096
_RARELY = 100_000, 50, 100
"""Thresholds of garbage collection: what an object leaves behind has no cycles."""
_SUFFIXES = {ord(suffix or "\0"): suffix for suffix in Suffix}


@dataclass(frozen=True, slots=True)
class Form:
    """How content becomes an object."""

    algorithm: Algorithm
    compression: Compression
    engine: Engine


class Piece(NamedTuple):
    """Content for one object of its own."""

    data: bytes | bytearray | memoryview
    suffix: Suffix


class Stored(NamedTuple):
    """An object that is in the storage: ``size`` in bytes as stored, ``new`` if it was not there before."""

    digest: Digest
    size: int
    new: bool


def store(storage: Storage, form: Form, piece: Piece) -> Stored:
    """Make sure that a piece's object is in the storage. Raises StorageError."""
    data = compress(piece.data, form.compression, form.engine)
    name = ObjectName(Digest.of(data, form.algorithm), piece.suffix)
    there = storage.size(name.path)
    if there != len(data):  # none, or one that a crash of the machine cut short
        storage.put(name.path, data)
    return Stored(name.digest, len(data), there is None)


class Worker:
    """A running worker process; for one thread at a time."""

    def __init__(self, storage: Storage, form: Form) -> None:
        """Start it. Raises StorageError."""
        self._algorithm = form.algorithm
        words = (storage.definition, form.algorithm.name, form.compression.name, form.engine.name)
        try:
            self._process = start("cvmfs_graphdriver.publisher.worker", *words)
        except OSError as error:
            raise StorageError(f"cannot start a process to store objects: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, as soon as it has done what it was asked."""
        self._process.communicate()

    def store(self, pieces: Sequence[Piece]) -> list[Stored]:
        """Store pieces, in their order. Raises StorageError; the worker may be asked again."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("a worker has pipes")
        heads = [_PIECE.pack(len(piece.data), ord(piece.suffix or "\0")) for piece in pieces]
        try:
            stdin.write(b"".join((_COUNT.pack(len(pieces)), *heads)))
            for piece in pieces:
                stdin.write(piece.data)
            stdin.flush()
            return [self._reply(stdout) for _ in pieces]
        except (BrokenPipeError, EOFError) as error:
            raise StorageError(
                f"the process that stores objects ended with status {self._process.wait()}: was it killed, "
                "or is this machine short of memory?"
            ) from error

    def _reply(self, stdout: IO[bytes]) -> Stored:
        status, raw, size = _REPLY.unpack(_exactly(stdout, _REPLY.size))
        if status == _FAILED:
            (length,) = _ERROR.unpack(_exactly(stdout, _ERROR.size))
            raise StorageError(_exactly(stdout, length).decode("utf-8", "replace"))
        return Stored(Digest(self._algorithm, raw), size, status == _NEW)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main() -> None:
    """The worker process: answer requests until the pipe ends, be it in the middle of one."""
    definition, algorithm, compression, engine = sys.argv[1:]
    storage = open_storage(definition)
    form = Form(Algorithm[algorithm], Compression[compression], Engine[engine])
    gc.freeze()
    gc.set_threshold(*_RARELY)
    with ThreadPoolExecutor(storage.parallel) as requests, suppress(EOFError, BrokenPipeError):
        while True:
            sys.stdout.buffer.write(_answer(storage, form, sys.stdin.buffer, requests))
            sys.stdout.buffer.flush()


def _answer(storage: Storage, form: Form, stdin: IO[bytes], requests: Executor) -> bytes:
    (count,) = _COUNT.unpack(_exactly(stdin, _COUNT.size))
    heads = list(_PIECE.iter_unpack(_exactly(stdin, count * _PIECE.size)))
    content = memoryview(_exactly(stdin, sum(length for length, _ in heads)))
    pieces = []
    for length, letter in heads:
        pieces.append(Piece(content[:length], _SUFFIXES[letter]))
        content = content[length:]
    try:
        if storage.parallel == 1:
            stored = [store(storage, form, piece) for piece in pieces]
        else:
            stored = list(requests.map(lambda piece: store(storage, form, piece), pieces))
    except StorageError as error:
        text = str(error).encode()[:_ERROR_LIMIT]
        return _REPLY.pack(_FAILED, bytes(20), 0) + _ERROR.pack(len(text)) + text
    return b"".join(_REPLY.pack(_NEW if new else _KNOWN, digest.raw, size) for digest, size, new in stored)


if __name__ == "__main__":
    main()
