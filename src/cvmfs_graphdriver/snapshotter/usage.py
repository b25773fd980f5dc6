"""How much of the disk a snapshot takes.

Owns: counting, as containerd does (allocated blocks, each inode once), and how often: kubelets ask every few
seconds for every container, so a directory is not counted again until twenty times as long has passed as
counting took. Must not know: which snapshots there are.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["UsageMeter", "disk_usage"]

_BLOCK: Final = 512
_SHARE: Final = 20
_KEPT: Final = 10_000


def disk_usage(directory: Path) -> tuple[int, int]:
    """Bytes and inodes in a directory, itself included; what disappears meanwhile does not count."""
    status = os.lstat(directory)
    size, seen = status.st_blocks * _BLOCK, {(status.st_dev, status.st_ino)}
    left = [os.fspath(directory)]
    while left:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(left.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                inode = status.st_dev, status.st_ino
                if inode not in seen:
                    seen.add(inode)
                    size += status.st_blocks * _BLOCK
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
    return size, len(seen)


class UsageMeter:
    """Counts directories that change, not too often; safe for any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counted: dict[Path, tuple[float, tuple[int, int]]] = {}

    def of(self, directory: Path) -> tuple[int, int]:
        """Bytes and inodes in a directory, counted now or recently. Raises OSError."""
        begin = self._clock()
        with self._lock:
            known = self._counted.get(directory)
        if known is not None and begin < known[0]:
            return known[1]
        found = disk_usage(directory)
        end = self._clock()
        with self._lock:
            if len(self._counted) >= _KEPT:
                self._counted = {path: each for path, each in self._counted.items() if each[0] > end}
            self._counted[directory] = end + _SHARE * (end - begin), found
        return found
