"""What the publisher needs of a storage, the place whose files an HTTP server serves.

Owns: the interface. A name is a path below the repository's root, e.g. ``data/ab/cdef…C`` or
``.cvmfspublished`` (CernVM-FS format reference, sections 1.3 and 6.4). Must not know: what a file contains.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from cvmfs_graphdriver.publisher.storage.local import LocalStorage

__all__ = ["ContentReader", "Storage"]


class ContentReader(Protocol):
    """A regular file's bytes, in order."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; empty at the end."""
        ...


class Storage(Protocol):
    """One repository's files; safe for any number of threads. All methods raise StorageError."""

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def definition(self) -> str:
        """Where it is, for another process: ``upstream.open_storage`` opens the same storage from it."""
        ...

    @property
    def parallel(self) -> int:
        """How many concurrent requests per process suit it: 1 where requests never wait."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None if there is none. A crash may have truncated it."""
        ...

    def get(self, name: str, *, limit: int) -> bytes | None:
        """A file's content; None if there is none. More than ``limit`` bytes are an error."""
        ...

    def open(self, name: str) -> AbstractContextManager[ContentReader] | None:
        """A file's bytes in order, for a ``with`` statement; None if there is none."""
        ...

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Store a file, replacing one of the same name; it appears whole or not at all."""
        ...

    def put_file(self, name: str, source: Path) -> None:
        """Store a copy of a local file, as ``put`` does."""
        ...

    def spool(self) -> AbstractContextManager[LocalStorage]:
        """A private storage for objects that may yet be refused, without the lock; gone after the block."""
        ...

    def adopt(self, spool: LocalStorage, name: str) -> None:
        """Move a file from a spool of this storage here."""
        ...

    def objects(self) -> Iterator[tuple[str, int]]:
        """Name and size of every file below ``data/``, except temporary ones."""
        ...

    def flush(self) -> None:
        """Make sure that everything stored so far survives a crash of the machine."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; missing ones are ignored."""
        ...

    def lock(self, *, wait: float) -> AbstractContextManager[None]:
        """Keep other publishers out; waits up to ``wait`` seconds, then raises BusyError."""
        ...
