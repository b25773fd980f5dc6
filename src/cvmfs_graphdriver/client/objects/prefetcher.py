"""Fetching ahead: many small objects at once, in a separate process.

Owns: what is being fetched ahead of readers, and the process that does it (``prefetch_worker``), which runs
while there is work for it. A reader of one object is served by a thread that makes one transfer. A reader of
thousands of small files should not wait for each of them, and fetching them in this process would delay the
threads that serve the reader. Must not know: who reads what, failover: a transfer whose first attempt fails
is continued by ``Transfer``.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.errors import UnreachableError
from cvmfs_graphdriver.client.network.connection import Problem
from cvmfs_graphdriver.client.network.failover import Attempt, Failure
from cvmfs_graphdriver.client.network.transfer import PendingTransfer, Transfer
from cvmfs_graphdriver.client.objects.background import Background
from cvmfs_graphdriver.client.objects.fetcher import Claim, Fetcher
from cvmfs_graphdriver.client.objects.prefetch_messages import CACHE, UNTRIED, Order, Result, Route, Setup
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.errors import KernelError
from cvmfs_graphdriver.kernel.waiting.deadline import end
from cvmfs_graphdriver.repository.errors import RepositoryError

if TYPE_CHECKING:
    from cvmfs_graphdriver.kernel.child import Child

__all__ = ["Arrived", "Prefetcher", "Task"]

_log = logging.getLogger(__name__)

Arrived = Callable[[str], None]
"""Called with the path of an object that is in the cache now."""

_WORKER = "cvmfs_graphdriver.client.objects.prefetch_worker"
_BIG = 1 << 20
"""Larger objects are fetched by threads: most of the time is spent decompressing them."""
_THREADS = 4
_MOST = 2048
"""The most objects that the worker has to fetch at once: orders for them always have room in the pipe."""
_SILENCE = 10.0
"""Seconds after which a worker that has work and says nothing is ended."""
_DEATHS = 3
_WHILE = 60.0
"""A worker that dies this many times within this many seconds is not started again."""


class Task(NamedTuple):
    """What to fetch, and what to call when it is there."""

    wanted: Wanted
    arrived: Arrived


class _Flight(NamedTuple):
    """What the worker has been ordered to fetch."""

    claim: Claim
    arrived: Arrived
    pending: PendingTransfer
    attempt: Attempt


class Prefetcher:
    """Fetches into the cache from a repository's servers; safe for any number of threads.

    Errors are not reported: whoever reads the object will see them.
    """

    def __init__(self, fetcher: Fetcher, transfer: Transfer, cache: Path, *, alien: bool = False) -> None:
        self._fetcher = fetcher
        self._transfer = transfer
        self._cache, self._alien = cache, alien
        self._slow = Background(_THREADS, "prefetch")
        self._lock = threading.Lock()
        self._worker: Child | None = None
        self._thread: threading.Thread | None = None
        self._flights: dict[int, _Flight] = {}
        self._waiting: set[Claim] = set()
        """Claims whose first attempt failed, and whose next one has not begun."""
        self._number = 0
        self._reserved = 0
        self._deaths: list[float] = []
        self._closing = False

    def submit(self, tasks: Iterable[Task], transfer: Transfer | None = None) -> int:
        """Begin to fetch what is missing, without waiting; returns how many objects that is.

        ``arrived`` is called for each object when it is there, now or later; never if it cannot be fetched.
        ``transfer`` is for objects that are not on the usual servers.
        """
        count = 0
        flights = []
        for task in tasks:
            claim = self._fetcher.claim(task.wanted, task.arrived)
            if claim is None:
                continue
            count += 1
            wanted = task.wanted
            pending = (transfer or self._transfer).pending(wanted.location, key=wanted.key, span=wanted.span)
            attempt = pending.attempt
            if transfer is not None or wanted.size > _BIG or attempt is None:
                self._carry_on(claim, task.arrived, pending, transfer or self._transfer)
            else:
                flights.append(_Flight(claim, task.arrived, pending, attempt))
        if flights and not self._order(flights):
            for flight in flights:
                self._carry_on(flight.claim, flight.arrived, flight.pending, self._transfer)
        return count

    @property
    def under_way(self) -> int:
        """How many objects the worker still has to fetch."""
        return len(self._flights)

    def close(self) -> None:
        """Stop fetching; what is in progress is given up."""
        with self._lock:
            self._closing = True
            thread, worker = self._thread, self._worker
            if worker is not None:
                worker.hang_up()
        if thread is not None:
            end(thread)
        self._slow.close()
        while self._waiting:
            self._waiting.pop().end(_closed())

    # The worker

    def _order(self, flights: list[_Flight]) -> bool:
        """Send orders to the worker; says whether there is one."""
        self._transfer.poll()
        routes: dict[Attempt, list[tuple[object, ...]]] = {}
        with self._lock:
            worker = self._running() if len(self._flights) + len(flights) <= _MOST else None
            if worker is None:
                return False
            if not self._reserved:
                self._reserved = self._transfer.reserve()
                if not self._reserved:
                    return False
            for flight in flights:
                self._number += 1
                self._flights[self._number] = flight
                wanted = flight.claim.wanted
                order = Order(
                    self._number,
                    wanted.name.text,
                    wanted.path,
                    wanted.size,
                    wanted.exact,
                    wanted.compression.value,
                )
                routes.setdefault(flight.attempt, []).append(tuple(order))
            with suppress(BrokenPipeError):  # the receiving thread will notice that it has ended
                for attempt, orders in routes.items():
                    route = Route(
                        attempt.host,
                        (attempt.proxy.url, attempt.proxy.name),
                        attempt.no_cache,
                        self._transfer.timeout_of(attempt),
                        self._reserved,
                    )
                    worker.channel.send((tuple(route), orders))
        return True

    def _running(self) -> "Child | None":
        """The worker, started if necessary; None if it cannot be started."""
        if self._worker is None and not self._closing and len(self._deaths) < _DEATHS:
            # A mount should not wait for this to be imported.
            from cvmfs_graphdriver.kernel.child import Child

            setup = Setup(self._transfer.settings, self._transfer.identifier, self._cache, self._alien)
            with suppress(KernelError, BrokenPipeError):
                self._worker = worker = Child(_WORKER)
                worker.channel.send(setup.message())
                self._thread = threading.Thread(
                    target=self._receive, args=(worker,), name="prefetcher", daemon=True
                )
                self._thread.start()
        return self._worker

    def _receive(self, worker: "Child") -> None:
        """A thread that runs as long as the worker."""
        with suppress(EOFError):
            while not self._closing:
                busy = bool(self._flights)
                if worker.channel.is_quiet(_SILENCE):
                    if busy:
                        _log.error("the process that fetches ahead gives no sign of life, it is ended")
                        worker.kill()
                    continue
                for values in worker.channel.receive():
                    self._conclude(Result(*values))
        with self._lock:
            self._worker = None
            flights, self._flights = list(self._flights.values()), {}
            self._release()
        code = worker.wait()
        self._fetcher.forget_writer(worker.pid)
        if code and not self._closing:
            now = time.monotonic()
            self._deaths = [*(when for when in self._deaths if now - when < _WHILE), now]
        for flight in flights:
            self._carry_on(flight.claim, flight.arrived, flight.pending, self._transfer)

    def _conclude(self, result: Result) -> None:
        with self._lock:
            flight = self._flights.pop(result.number)
            if not self._flights:
                self._release()
        if not result.failure:
            self._transfer.succeeded(flight.attempt, result.received, result.seconds)
            flight.claim.stored(result.size, result.crc32)
            flight.arrived(flight.claim.path)
            return
        if result.failure not in {CACHE, UNTRIED}:
            problem = Problem(
                Failure[result.failure],
                result.detail,
                result.missing,
                RepositoryError(result.detail) if result.wrong else None,
            )
            self._transfer.failed(flight.pending, flight.attempt, problem)
        self._carry_on(flight.claim, flight.arrived, flight.pending, self._transfer)

    def _release(self) -> None:
        """Release the connections that were reserved. Call it with the lock held."""
        reserved, self._reserved = self._reserved, 0
        self._transfer.give_up(reserved)

    # Threads

    def _carry_on(self, claim: Claim, arrived: Arrived, pending: PendingTransfer, transfer: Transfer) -> None:
        """Make the attempts that are left, in a thread."""

        def task() -> None:
            self._waiting.discard(claim)
            try:
                claim.fetch(lambda download: transfer.finish(pending, download))
            except CvmfsGraphdriverError:
                return
            arrived(claim.path)

        self._waiting.add(claim)
        if self._closing:
            self._waiting.discard(claim)
            claim.end(_closed())
        else:
            self._slow.submit(task)


def _closed() -> UnreachableError:
    return UnreachableError("the client is being closed")
