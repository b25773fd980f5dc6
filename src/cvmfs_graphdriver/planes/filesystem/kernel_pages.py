"""What the kernel may have in its page cache, and when it should ask for it again.

Owns: which files were given to the kernel, and how long ago. The kernel opens and reads what it has cached
without notice, so a file in daily use would seem unused and be evicted first. Therefore the kernel is made to
ask again from time to time. Must not know: how it is told, and whether the cache is filling up.
"""

import threading
from collections.abc import Collection

__all__ = ["KernelPages"]

_LIMIT = 1 << 17
"""The most files that are remembered."""


class KernelPages:
    """Inodes of two generations; safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._young: set[int] = set()
        self._old: set[int] = set()

    def add(self, inodes: Collection[int]) -> None:
        """Note that the kernel was given these files, or parts of them."""
        with self._lock:
            if len(self._young) + len(self._old) < _LIMIT:
                self._young.update(inodes)

    def due(self) -> Collection[int]:
        """The files that it got before the last call and not since; they are forgotten now."""
        with self._lock:
            due, self._old, self._young = self._old - self._young, self._young, set()
        return due
