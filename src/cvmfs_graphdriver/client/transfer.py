"""Fetch something from whichever server, through whichever proxy, delivers it.

Owns: one transfer from its first attempt to its last, up to 16 transfers at once (CernVM-FS format
reference, section 8.5), and the one error that tells why there was no success. Must not know: caches,
catalogs, trust. What is received goes piecewise into a ``Sink``, which says whether it is right; who to ask
next is decided by ``failover``; one attempt is made by ``connection``.
"""

import threading
import time
from collections.abc import Callable, Mapping

from cvmfs_graphdriver.client.connection import Connection, Problem, Sink
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.errors import NotFoundError, UnreachableError
from cvmfs_graphdriver.client.failover import Attempt, Failover, Job
from cvmfs_graphdriver.client.proxies import DIRECT
from cvmfs_graphdriver.client.settings import NetworkSettings
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["Errand", "Memory", "Transfer"]

_CONNECTIONS = 16
_SPARE = 12
"""How many of them may be in use for what nobody waits for."""
_REASONS = 3
"""How many of several reasons an error names."""


class Memory:
    """A sink in memory for small things, with an upper limit in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def begin(self) -> None:
        self._buffer.clear()

    def write(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > self._limit:
            raise RepositoryError(f"the answer has more than the {self._limit} bytes that are allowed")
        self._buffer += data

    def finish(self) -> None:
        pass

    def getvalue(self) -> bytes:
        """What was received."""
        return bytes(self._buffer)


class Errand:
    """One transfer on its way from its first attempt to its last."""

    __slots__ = ("attempt", "job", "path", "problems", "sink", "span", "started")

    def __init__(self, path: str, sink: Sink, span: tuple[int, int] | None, job: Job) -> None:
        self.path = path
        self.sink = sink
        self.span = span
        self.job = job
        self.started = time.monotonic()
        self.attempt: Attempt | None = job.first(self.started)
        """What is to be tried next."""
        self.problems: dict[str, Problem] = {}
        """What happened so far, by where."""


class Transfer:
    """Fetches from the servers of one repository; safe for any number of threads.

    ``poll`` is called before each attempt; ``identifier`` tells this client from others.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        failover: Failover,
        counters: Counters,
        poll: Callable[[], None] = lambda: None,
        identifier: str = "",
    ) -> None:
        self.failover = failover
        self.timeout = settings.timeout
        """Seconds to connect and to wait for data through a proxy; may be changed at any time."""
        self.timeout_direct = settings.timeout_direct
        """The same without a proxy."""
        self._settings = settings
        self._poll = poll
        self._identifier = identifier
        self._counters = counters
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        self._spare = threading.BoundedSemaphore(_SPARE)
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def get(self, path: str, limit: int) -> bytes:
        """Fetch something small into memory: at most ``limit`` bytes. Raises as ``fetch`` does."""
        sink = Memory(limit)
        self.fetch(path, sink)
        return sink.getvalue()

    def fetch(self, path: str, sink: Sink, *, key: int = 0, span: tuple[int, int] | None = None) -> None:
        """Fetch ``path`` below the servers' URLs into ``sink``.

        ``path`` is percent-encoded; ``key`` is for sharding; ``span`` asks for the bytes from one offset up
        to, and without, another one.

        Raises NotFoundError: servers answer and none has it. UnreachableError: no server delivers it. What
        the sink raises, if no server has better bytes.
        """
        self.finish(self.errand(path, sink, key=key, span=span))

    def errand(self, path: str, sink: Sink, *, key: int = 0, span: tuple[int, int] | None = None) -> "Errand":
        """A transfer that is still to be made; the parameters are those of ``fetch``."""
        return Errand(path, sink, span, self.failover.job(key))

    def finish(self, errand: "Errand") -> None:
        """Make the attempts that are left. Raises as ``fetch`` does."""
        connection = self.borrow()
        try:
            while errand.attempt is not None:
                if self._closing.wait(errand.attempt.delay):
                    raise UnreachableError(f"{errand.path}: the client is being closed")
                self.prepare(errand, errand.attempt, connection)
                if self.conclude(errand, errand.attempt, connection, *connection.run()):
                    return
        finally:
            self.give_back(connection)
        raise _summary(errand.path, errand.problems)

    def prepare(self, errand: "Errand", attempt: Attempt, connection: Connection) -> None:
        """Set everything for an attempt, which is then made by ``connection``'s handle."""
        timeout = self.timeout_direct if attempt.proxy == DIRECT else self.timeout
        self._poll()
        errand.started = time.monotonic()
        errand.sink.begin()
        connection.prepare(attempt, errand.path, errand.sink, errand.span, timeout)

    def conclude(
        self, errand: "Errand", attempt: Attempt, connection: Connection, number: int, text: str
    ) -> bool:
        """Whether an attempt that ended with this error of libcurl was a success; if not, there is a next.

        Raises what the sink raises about itself.
        """
        problem = connection.conclude(attempt, errand.sink, number, text)
        now = time.monotonic()
        if problem is None:
            self._counters.add_download(connection.received, now - errand.started, _source(attempt))
            return True
        self._counters.add(f"failure:{problem.failure.name.lower()}")
        errand.problems[_where(attempt)] = problem
        errand.attempt = errand.job.failed(attempt, problem.failure, now)
        return False

    def leave(self, host: str) -> None:
        """Go on to the next server if ``host`` is in use: it delivers, but cannot be believed."""
        self.failover.leave_host(host, time.monotonic())

    def switch_host(self) -> None:
        """Go on to the next server."""
        self.failover.switch_host(time.monotonic())

    def switch_group(self) -> None:
        """Go on to the next group of proxies."""
        self.failover.switch_group(time.monotonic())

    def close(self) -> None:
        """Stop waiting transfers and close all idle connections."""
        self._closing.set()
        with self._lock:
            connections, self._idle = self._idle, []
        for connection in connections:
            connection.close()

    def borrow(self) -> Connection:
        """A connection for the caller alone, as soon as there are not too many in use."""
        self._slots.acquire()
        return self._take()

    def try_to_borrow(self) -> Connection | None:
        """The same, or None if there are too many in use already; some are kept for who has to wait."""
        if self._spare.acquire(blocking=False):
            if self._slots.acquire(blocking=False):
                return self._take()
            self._spare.release()
        return None

    def give_back(self, connection: Connection, *, spare: bool = False) -> None:
        """The end of ``borrow``, or of ``try_to_borrow``, which was ``spare``."""
        with self._lock:
            keep = not self._closing.is_set()
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        self._slots.release()
        if spare:
            self._spare.release()

    def _take(self) -> Connection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        return connection or Connection(self._settings, self._identifier)


def _where(attempt: Attempt) -> str:
    return attempt.host if attempt.proxy == DIRECT else f"{attempt.host} through {attempt.proxy.name}"


def _source(attempt: Attempt) -> str:
    return f"host {attempt.host}" if attempt.proxy == DIRECT else f"proxy {attempt.proxy.name}"


def _summary(path: str, problems: Mapping[str, Problem]) -> CvmfsGraphdriverError:
    """One error for all that happened; ``problems`` by where they happened, the last one last."""
    last = list(problems.values())[-1]
    if last.error is not None:
        return last.error
    if all(problem.missing for problem in problems.values()):
        return NotFoundError(f"{path} does not exist at {', '.join(problems)}")
    reasons = [f"{where}: {problem.detail}" for where, problem in problems.items()]
    return UnreachableError(f"cannot fetch {path}: {'; '.join(reasons[-_REASONS:])}")
