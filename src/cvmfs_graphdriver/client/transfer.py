"""Fetch something from whichever server, through whichever proxy, delivers it.

Owns: one transfer from its first attempt to its last, up to 16 transfers at once (CernVM-FS format
reference, section 8.5), and the one error that tells why there was no success. Must not know: caches,
catalogs, trust. What is received goes piecewise into a ``Sink``, which says whether it is right; who to ask
next is decided by ``failover``; one attempt is made by ``connection``.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from cvmfs_graphdriver.client.connection import Connection, Problem, Sink
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.errors import NotFoundError, UnreachableError
from cvmfs_graphdriver.client.failover import Attempt, Failover
from cvmfs_graphdriver.client.proxies import DIRECT
from cvmfs_graphdriver.client.settings import NetworkSettings
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["Memory", "Transfer"]

_CONNECTIONS = 16
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
        job = self.failover.job(key)
        attempt: Attempt | None = job.first(time.monotonic())
        problems: dict[str, Problem] = {}
        with self._connection() as connection:
            while attempt is not None:
                if self._closing.wait(attempt.delay):
                    raise UnreachableError(f"{path}: the client is being closed")
                problem = self._try(connection, attempt, path, sink, span)
                if problem is None:
                    return
                self._counters.add(f"failure:{problem.failure.name.lower()}")
                problems[_where(attempt)] = problem
                attempt = job.failed(attempt, problem.failure, time.monotonic())
        raise _summary(path, problems)

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

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._slots:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or Connection(self._settings, self._identifier)
            try:
                yield connection
            finally:
                with self._lock:
                    keep = not self._closing.is_set()
                    if keep:
                        self._idle.append(connection)
                if not keep:
                    connection.close()

    def _try(
        self, connection: Connection, attempt: Attempt, path: str, sink: Sink, span: tuple[int, int] | None
    ) -> Problem | None:
        timeout = self.timeout_direct if attempt.proxy == DIRECT else self.timeout
        self._poll()
        started = time.monotonic()
        sink.begin()
        problem = connection.perform(attempt, path, sink, span, timeout)
        if problem is None:
            self._counters.add_download(connection.received, time.monotonic() - started)
        return problem


def _where(attempt: Attempt) -> str:
    return attempt.host if attempt.proxy == DIRECT else f"{attempt.host} through {attempt.proxy.name}"


def _summary(path: str, problems: Mapping[str, Problem]) -> CvmfsGraphdriverError:
    """One error for all that happened; ``problems`` by where they happened, the last one last."""
    last = list(problems.values())[-1]
    if last.error is not None:
        return last.error
    if all(problem.missing for problem in problems.values()):
        return NotFoundError(f"{path} does not exist at {', '.join(problems)}")
    reasons = [f"{where}: {problem.detail}" for where, problem in problems.items()]
    return UnreachableError(f"cannot fetch {path}: {'; '.join(reasons[-_REASONS:])}")
