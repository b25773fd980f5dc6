"""A process that turns pieces of content into stored objects, and its parent's end of the pipe.

Owns: one object's way from bytes to storage – compressed, hashed, stored if missing (CernVM-FS format
reference, sections 1.4 and 1.5) – and the messages on the pipe. Must not know: files, paths, catalogs, what
goes to which worker.

Processes rather than threads, since even the little Python code per object would keep the other cores waiting
for the interpreter's lock. A worker ends when its pipe does, so it never outlives its parent.

A request is the number of pieces, then the length and suffix letter (0 for none) of each, then all bytes. The
reply is one ``_REPLY`` per piece, or one error: the length of its text, then the text.
"""

import struct
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple, Self, cast

from cvmfs_graphdriver.kernel.child import start
from cvmfs_graphdriver.kernel.memory.garbage import look_for_garbage_seldom
from cvmfs_graphdriver.kernel.memory.heap import keep_freed_memory
from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.publisher.storage.upstream import open_storage
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import Engine, compress
from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, Suffix

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["Form", "Piece", "Stored", "Worker", "store"]

_COUNT = struct.Struct("<I")
_PIECE = struct.Struct("<QB")
_REPLY = struct.Struct("<B20sQ")
_ERROR = struct.Struct("<I")
_KNOWN, _NEW, _FAILED = 0, 1, 2
_ERROR_LIMIT = 4096
_SUFFIXES = {ord(suffix or "\0"): suffix for suffix in Suffix}


@dataclass(frozen=True, slots=True)
class Form:
    """How content becomes an object."""

    algorithm: Algorithm
    compression: Compression
    engine: Engine


class Piece(NamedTuple):
    """Content for one object: ``size`` bytes, in parts as they arrived, since joining takes time."""

    parts: Sequence[bytes | memoryview]
    size: int
    suffix: Suffix

    @classmethod
    def of(cls, data: bytes | memoryview, suffix: Suffix) -> "Piece":
        """A piece in one part."""
        return cls((data,), len(data), suffix)


class Stored(NamedTuple):
    """An object in the storage: ``size`` is in bytes as stored, ``new`` if it was not there before."""

    digest: Digest
    size: int
    new: bool


def store(storage: Storage, form: Form, piece: Piece) -> Stored:
    """Make sure that a piece's object is in the storage. Raises StorageError."""
    content = piece.parts[0] if len(piece.parts) == 1 else b"".join(piece.parts)
    data = compress(content, form.compression, form.engine)
    name = ObjectName(Digest.of(data, form.algorithm), piece.suffix)
    path = name.path
    there = storage.size(path)
    if there != len(data):  # missing, or truncated by a crash of the machine
        storage.put(path, data)
    return Stored(name.digest, len(data), there is None)


class Worker:
    """A running worker process; for one thread at a time."""

    def __init__(self, storage: Storage, form: Form) -> None:
        """Start it. Raises StorageError."""
        self._algorithm = form.algorithm
        words = (storage.definition, form.algorithm.name, form.compression.name, form.engine.name)
        try:
            self._process = start("cvmfs_graphdriver.publisher.ingest.worker", *words)
        except OSError as error:
            raise StorageError(f"cannot start a process to store objects: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it once it has answered all requests."""
        self._process.communicate()

    def store(self, pieces: Sequence[Piece]) -> list[Stored]:
        """Store pieces, in order. Raises StorageError; the worker stays usable."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("a worker has pipes")
        # No local name may keep a piece: whoever keeps an error also keeps the values of these names.
        heads = [_PIECE.pack(piece.size, ord(piece.suffix or "\0")) for piece in pieces]
        try:
            stdin.write(b"".join((_COUNT.pack(len(pieces)), *heads)))
            stdin.writelines(part for piece in pieces for part in piece.parts)
            stdin.flush()
            return [self._reply(stdout) for _ in heads]
        except (BrokenPipeError, EOFError) as error:
            raise StorageError(
                f"the process that stores objects ended with status {self._process.wait()}: was it killed, "
                "or is the machine out of memory?"
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
    """The worker process: answer requests until the pipe ends, even in the middle of one."""
    definition, algorithm, compression, engine = sys.argv[1:]
    storage = open_storage(definition)
    form = Form(Algorithm[algorithm], Compression[compression], Engine[engine])
    look_for_garbage_seldom()
    keep_freed_memory()
    stdin = cast("BufferedReader", sys.stdin.buffer)
    memory = bytearray()  # reused by all requests: allocating costs as much as filling it
    with ThreadPoolExecutor(storage.parallel) as requests, suppress(EOFError, BrokenPipeError):
        while True:
            heads = _heads(stdin)
            size = sum(length for length, _ in heads)
            if size > len(memory):
                memory = bytearray(size)
            content = memoryview(memory)[:size]
            if stdin.readinto(content) < size:
                return
            sys.stdout.buffer.write(_answer(storage, form, heads, content, requests))
            sys.stdout.buffer.flush()


def _heads(stdin: IO[bytes]) -> list[tuple[int, int]]:
    (count,) = _COUNT.unpack(_exactly(stdin, _COUNT.size))
    return list(_PIECE.iter_unpack(_exactly(stdin, count * _PIECE.size)))


def _answer(
    storage: Storage, form: Form, heads: Sequence[tuple[int, int]], content: memoryview, requests: Executor
) -> bytes:
    pieces = []
    for length, letter in heads:
        pieces.append(Piece.of(content[:length], _SUFFIXES[letter]))
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
