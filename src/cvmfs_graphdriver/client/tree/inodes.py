"""Inode numbers that persist across eviction, remount and restart.

Owns: the table that assigns each catalog a range of numbers, and its file in the workspace, to which lines
are only ever appended. An inode number is the offset of the range plus the row in the catalog; catalogs are
immutable, so a number means the same entry for ever. A catalog keeps its range in every revision that has it
at the same mountpoint. Must not know: SQL, FUSE.

The file has one line for each catalog: offset, number of rows, digest, mountpoint in hex, separated by
spaces. A last line without a newline was truncated by a crash and is dropped.
"""

import bisect
import fcntl
import os
import threading
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.errors import CacheError, StaleInodeError
from cvmfs_graphdriver.kernel.waiting.filelock import lock
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["ROOT_INODE", "InodeTable", "Range"]

ROOT_INODE = 1
"""The root directory of every revision."""


class Range(NamedTuple):
    """The numbers ``offset + 1`` to ``offset + rows`` belong to this catalog at this mountpoint."""

    offset: int
    rows: int
    digest: Digest
    mountpoint: bytes


class InodeTable:
    """All ranges ever assigned in one workspace; safe for threads, and for several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._ranges: list[Range] = []
        self._by_catalog: dict[tuple[bytes, Digest], Range] = {}
        self._read = 0
        with self._lock:
            self._update()

    @property
    def greatest(self) -> int:
        """The greatest number assigned."""
        with self._lock:
            return self._ranges[-1].offset + self._ranges[-1].rows if self._ranges else ROOT_INODE

    def range_of(self, mountpoint: bytes, digest: Digest, rows: int) -> Range:
        """The range of a catalog with ``rows`` rows, assigned now if it has none yet. Raises CacheError."""
        key = (mountpoint, digest)
        with self._lock:
            known = self._by_catalog.get(key)
            if known is None:
                known = self._append(key, rows)
            return known

    def find(self, inode: int) -> Range:
        """The range that contains an inode. Raises StaleInodeError: it was never assigned."""
        with self._lock:
            position = bisect.bisect_left(self._ranges, inode, key=lambda item: item.offset) - 1
            if position >= 0:
                found = self._ranges[position]
                if inode <= found.offset + found.rows:
                    return found
        raise StaleInodeError(f"inode {inode} is unknown in {self._path}")

    def _append(self, key: tuple[bytes, Digest], rows: int) -> Range:
        mountpoint, digest = key
        try:
            with self._path.open("ab") as file:
                lock(file.fileno(), fcntl.LOCK_EX, os.fspath(self._path))
                self._update()
                if key in self._by_catalog:
                    return self._by_catalog[key]
                last = self._ranges[-1] if self._ranges else None
                offset = last.offset + last.rows if last else ROOT_INODE
                if file.tell() != self._read:
                    os.ftruncate(file.fileno(), self._read)
                file.write(f"{offset} {rows} {digest} {mountpoint.hex() or '-'}\n".encode())
        except OSError as error:
            raise CacheError(f"cannot write the inode table {self._path}: {error.strerror}") from error
        self._update()
        return self._by_catalog[key]

    def _update(self) -> None:
        """Read what other processes have appended."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise CacheError(f"cannot read the inode table {self._path}: {error.strerror}") from error
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self._read += len(line)
            item = self._parse(line)
            self._ranges.append(item)
            self._by_catalog[item.mountpoint, item.digest] = item

    def _parse(self, line: bytes) -> Range:
        try:
            offset, rows, digest, mountpoint = line.decode("ascii").split()
            place = b"" if mountpoint == "-" else bytes.fromhex(mountpoint)
            return Range(int(offset), int(rows), Digest.parse(digest), place)
        except (ValueError, FormatError) as error:
            raise CacheError(
                f"the inode table {self._path} is damaged: {error}; unmount and remove it"
            ) from error
