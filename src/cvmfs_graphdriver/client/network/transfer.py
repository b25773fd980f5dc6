"""Fetch something from whichever server, through whichever proxy, delivers it.

Owns: one transfer from its first attempt to its last, up to 16 transfers at once (CernVM-FS format
reference, section 8.5), and the one error that tells why there was no success. Must not know: caches,
catalogs, trust. What is received goes piecewise into a ``Sink``, which says whether it is right; who to ask
next is decided by ``failover``; one attempt is made by ``connection``.
"""

import threading
import time
from collections.abc import Callable, Mapping

from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.errors import NotFoundError, UnreachableError
from cvmfs_graphdriver.client.network.connection import Connection, Problem, Sink
from cvmfs_graphdriver.client.network.failover import Attempt, Failover, Job
from cvmfs_graphdriver.client.network.proxies import DIRECT
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["Errand", "Memory", "Transfer"]

_CONNECTIONS = 16
_SPARE = 12
"""How many of them may be set aside for what nobody waits for."""
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

    __slots__ = ("attempt", "job", "path", "problems", "span")

    def __init__(self, path: str, span: tuple[int, int] | None, job: Job) -> None:
        self.path = path
        self.span = span
        self.job = job
        self.attempt: Attempt | None = job.first(time.monotonic())
        """What is to be tried next."""
        self.problems: dict[str, Problem] = {}
        """What happened so far, by where."""


class Transfer:
    """Fetches from the servers of one repository; safe for any number of threads.

    ``identifier`` tells this client from others.
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
        self.settings = settings
        self.poll = poll
        """To be called before each attempt."""
        self.identifier = identifier
        self._counters = counters
        self._slots = threading.Semaphore(_CONNECTIONS)
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
        self.finish(self.errand(path, key=key, span=span), sink)

    def errand(self, path: str, *, key: int = 0, span: tuple[int, int] | None = None) -> Errand:
        """A transfer that is still to be made; the parameters are those of ``fetch``."""
        return Errand(path, span, self.failover.job(key))

    def finish(self, errand: Errand, sink: Sink) -> None:
        """Make the attempts that are left. Raises as ``fetch`` does."""
        connection = self._borrow()
        try:
            while (attempt := errand.attempt) is not None:
                if self._closing.wait(attempt.delay):
                    raise UnreachableError(f"{errand.path}: the client is being closed")
                self.poll()
                started = time.monotonic()
                sink.begin()
                connection.prepare(attempt, errand.path, sink, errand.span, self.timeout_of(attempt))
                problem = connection.conclude(attempt, sink, *connection.run())
                if problem is None:
                    self.succeeded(attempt, connection.received, time.monotonic() - started)
                    return
                self.failed(errand, attempt, problem)
        finally:
            self._give_back(connection)
        raise _summary(errand.path, errand.problems)

    def timeout_of(self, attempt: Attempt) -> float:
        """Seconds that an attempt may take to connect, and to wait for data."""
        return self.timeout_direct if attempt.proxy == DIRECT else self.timeout

    def succeeded(self, attempt: Attempt, received: int, seconds: float) -> None:
        """An attempt, made here or elsewhere, has brought what it should."""
        self._counters.add_download(received, seconds, _source(attempt))

    def failed(self, errand: Errand, attempt: Attempt, problem: Problem) -> None:
        """An attempt, made here or elsewhere, has failed: the errand's next one is another."""
        self._counters.add(f"failure:{problem.failure.name.lower()}")
        errand.problems[_where(attempt)] = problem
        errand.attempt = errand.job.failed(attempt, problem.failure, time.monotonic())

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

    def reserve(self) -> int:
        """Set connections aside for transfers that are made elsewhere; says how many, perhaps none.

        Some are kept for who has to wait.
        """
        count = 0
        while count < _SPARE and self._slots.acquire(blocking=False):
            count += 1
        return count

    def give_up(self, count: int) -> None:
        """The end of ``reserve``."""
        if count:
            self._slots.release(count)

    def _borrow(self) -> Connection:
        """A connection for the caller alone, as soon as there are not too many in use."""
        self._slots.acquire()
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        return connection or Connection(self.settings, self.identifier)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            keep = not self._closing.is_set()
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        self._slots.release()


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
