"""Fetch something from whichever server, through whichever proxy, delivers it.

Owns: one transfer from its first attempt to its last, up to 16 transfers at once (CernVM-FS format
reference, section 8.5), and the one error that says why it failed. Must not know: caches, catalogs, trust.
Received bytes go piecewise into a ``Sink``, which says whether they are right; ``failover`` decides whom to
ask next; ``connection`` makes one attempt.
"""

import threading
import time
from collections.abc import Callable, Mapping

from cvmfs_graphdriver.client.addresses import shown_url
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.counters import ClientCounters, Source, SourceKind
from cvmfs_graphdriver.client.errors import NotFoundError, UnreachableError
from cvmfs_graphdriver.client.network.connection import CurlConnection, Problem, Sink
from cvmfs_graphdriver.client.network.failover import Attempt, Failover, Job
from cvmfs_graphdriver.client.network.proxies import DIRECT
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.waiting.watch import waiting
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["Memory", "PendingTransfer", "Transfer"]

_CONNECTIONS = 16
_QUEUE = 600.0
"""Seconds that a transfer waits for a connection at most; each is free again after a limited time."""
_SPARE = 12
"""How many of them may be reserved for transfers that nobody waits for."""
_REASONS = 3
"""How many reasons an error names at most."""


class Memory:
    """A sink in memory for small objects, with a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self.most = limit
        self._buffer = bytearray()

    def begin(self) -> None:
        self._buffer.clear()

    def write(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > self.most:
            raise RepositoryError(f"the answer exceeds the limit of {self.most} bytes")
        self._buffer += data

    def finish(self) -> None:
        pass

    def getvalue(self) -> bytes:
        """The received bytes."""
        return bytes(self._buffer)


class PendingTransfer:
    """One transfer on its way from its first attempt to its last."""

    __slots__ = ("attempt", "job", "path", "problems", "span")

    def __init__(self, path: str, span: tuple[int, int] | None, job: Job) -> None:
        self.path = path
        self.span = span
        self.job = job
        self.attempt: Attempt | None = job.first(time.monotonic())
        """What to try next."""
        self.problems: dict[str, Problem] = {}
        """What has failed so far, by place."""

    def take(self, attempt: Attempt) -> Attempt:
        """What to try instead of ``attempt``, which was chosen a while ago: others may know better by now."""
        self.attempt = self.job.again(attempt, time.monotonic())
        return self.attempt


class Transfer:
    """Fetches from the servers of one repository; safe for any number of threads.

    ``identifier`` distinguishes this client from others.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        failover: Failover,
        counters: ClientCounters,
        poll: Callable[[], None] = lambda: None,
        identifier: str = "",
    ) -> None:
        self.failover = failover
        self.timeout = settings.timeout
        """Seconds to connect, and to wait for data, through a proxy; may be changed at any time."""
        self.timeout_direct = settings.timeout_direct
        """The same without a proxy."""
        self.settings = settings
        self.poll = poll
        """To be called before each attempt."""
        self.identifier = identifier
        self._counters = counters
        self._slots = threading.Semaphore(_CONNECTIONS)
        self._idle: list[CurlConnection] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def get(self, path: str, limit: int, *, past_caches: bool = False) -> bytes:
        """Fetch at most ``limit`` bytes into memory, from no HTTP cache if it is to be ``past_caches``.

        Raises as ``fetch`` does.
        """
        sink = Memory(limit)
        self.finish(PendingTransfer(path, None, self.failover.job(past_caches=past_caches)), sink)
        return sink.getvalue()

    def fetch(self, path: str, sink: Sink, *, key: int = 0, span: tuple[int, int] | None = None) -> None:
        """Fetch ``path`` below the servers' URLs into ``sink``.

        ``path`` is percent-encoded; ``key`` is for sharding; ``span`` asks for the bytes from one offset up
        to, but not including, another.

        Raises NotFoundError: servers answer and none has it; UnreachableError: no server delivers it; or the
        sink's error, if no server has better bytes.
        """
        self.finish(self.pending(path, key=key, span=span), sink)

    def pending(self, path: str, *, key: int = 0, span: tuple[int, int] | None = None) -> PendingTransfer:
        """A transfer yet to be made; the parameters are those of ``fetch``."""
        return PendingTransfer(path, span, self.failover.job(key))

    def finish(self, pending: PendingTransfer, sink: Sink) -> None:
        """Make the remaining attempts. Raises as ``fetch`` does."""
        with waiting(f"a connection to fetch {pending.path}"):
            connection = self._borrow(pending.path)
        try:
            while (attempt := pending.attempt) is not None:
                with waiting(f"the next attempt to fetch {pending.path}"):
                    closing = self._closing.wait(attempt.delay)
                if closing:
                    raise UnreachableError(f"{pending.path}: the client is being closed")
                self.poll()
                attempt = pending.take(attempt)  # it waited for a connection, and its delay
                started = time.monotonic()
                sink.begin()
                connection.prepare(attempt, pending.path, sink, pending.span, self.timeout_of(attempt))
                with waiting(f"{pending.path} from {_where(attempt)}"):
                    outcome = connection.run()
                problem = connection.conclude(attempt, sink, *outcome)
                if problem is None:
                    self.succeeded(attempt, connection.received, time.monotonic() - started)
                    return
                self.failed(pending, attempt, problem)
        finally:
            self._give_back(connection)
        raise _summary(pending.path, pending.problems)

    def timeout_of(self, attempt: Attempt) -> float:
        """Seconds that an attempt may take to connect, and to wait for data."""
        return self.timeout_direct if attempt.proxy == DIRECT else self.timeout

    def succeeded(self, attempt: Attempt, received: int, seconds: float) -> None:
        """Record that an attempt, made here or elsewhere, succeeded."""
        self._counters.add_download(received, seconds, _source(attempt))

    def failed(self, pending: PendingTransfer, attempt: Attempt, problem: Problem) -> None:
        """Record that an attempt, made here or elsewhere, failed: ``pending`` goes on to its next one."""
        self._counters.add_failure(problem.failure.name)
        pending.problems[_where(attempt)] = problem
        pending.attempt = pending.job.failed(attempt, problem.failure, time.monotonic())

    def leave(self, host: str) -> None:
        """Go on to the next server if ``host`` is in use: it delivers, but cannot be trusted."""
        self.failover.leave_host(host, time.monotonic())

    def switch_host(self) -> None:
        """Go on to the next server."""
        self.failover.switch_host(time.monotonic())

    def switch_group(self) -> None:
        """Go on to the next group of proxies."""
        self.failover.switch_group(time.monotonic())

    def close(self) -> None:
        """Stop transfers that wait, and close all idle connections."""
        self._closing.set()
        with self._lock:
            connections, self._idle = self._idle, []
        for connection in connections:
            connection.close()

    def reserve(self) -> int:
        """Reserve connections for transfers made elsewhere; returns how many, perhaps none.

        Some are kept for transfers that somebody waits for.
        """
        count = 0
        while count < _SPARE and self._slots.acquire(blocking=False):
            count += 1
        return count

    def give_up(self, count: int) -> None:
        """Release what ``reserve`` returned."""
        if count:
            self._slots.release(count)

    def _borrow(self, path: str) -> CurlConnection:
        """A connection for the caller alone, as soon as fewer than the limit are in use."""
        if not self._slots.acquire(timeout=_QUEUE):
            raise UnreachableError(f"{path} cannot be fetched: no connection has been free for {_QUEUE:g} s")
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        return connection or CurlConnection(self.settings, self.identifier)

    def _give_back(self, connection: CurlConnection) -> None:
        with self._lock:
            keep = not self._closing.is_set()
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        self._slots.release()


def _where(attempt: Attempt) -> str:
    host = shown_url(attempt.host)
    return host if attempt.proxy == DIRECT else f"{host} through {attempt.proxy.name}"


def _source(attempt: Attempt) -> Source:
    if attempt.proxy == DIRECT:
        return Source(SourceKind.HOST, shown_url(attempt.host))
    return Source(SourceKind.PROXY, attempt.proxy.name)


def _summary(path: str, problems: Mapping[str, Problem]) -> CvmfsGraphdriverError:
    """One error for all problems, which are given by place, the latest last."""
    last = list(problems.values())[-1]
    if last.error is not None:
        return last.error
    if all(problem.missing for problem in problems.values()):
        return NotFoundError(f"{path} does not exist at {', '.join(problems)}")
    reasons = [f"{where}: {problem.detail}" for where, problem in problems.items()]
    return UnreachableError(f"cannot fetch {path}: {'; '.join(reasons[-_REASONS:])}")
