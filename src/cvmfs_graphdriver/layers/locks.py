"""A lock for each of many names, which exists only while it is held or waited for.

Must not know: what is locked.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NamedLocks"]


class NamedLocks:
    """Locks that are created on demand; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock ``name``. Not reentrant."""
        with self._lock:
            lock, uses = self._used.get(name, (threading.Lock(), 0))
            self._used[name] = lock, uses + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, uses = self._used[name]
                if uses == 1:
                    del self._used[name]
                else:
                    self._used[name] = lock, uses - 1
