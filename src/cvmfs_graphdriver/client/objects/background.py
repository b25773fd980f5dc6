"""Background work.

Owns: a few threads and a queue. Must not know: what the work is. It is leaner than an executor of the
standard library, which creates a future for every task: here there are tens of thousands of small tasks.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from cvmfs_graphdriver.kernel.waiting.deadline import end

__all__ = ["Background"]


class Background:
    """Runs tasks in threads, which are started with the first task; safe for any number of threads.

    Tasks must handle their errors themselves.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._count = threads
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closing = False

    def submit(self, task: Callable[[], None]) -> None:
        """Run ``task`` when a thread is free."""
        if not self._threads:
            self._start()
        self._tasks.put(task)

    @property
    def waiting(self) -> int:
        """How many tasks have not started."""
        return self._tasks.qsize()

    def close(self) -> None:
        """Wait for running tasks; drop those that have not started."""
        self._closing = True
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            end(thread)

    def _start(self) -> None:
        with self._lock:
            if self._threads or self._closing:
                return
            self._threads = [
                threading.Thread(target=self._run, name=f"{self._name} {number}", daemon=True)
                for number in range(self._count)
            ]
            for thread in self._threads:
                thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closing:
            task()
