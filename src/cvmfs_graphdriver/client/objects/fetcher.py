"""Objects by name: from the cache, or from the network into the cache, verified on the way.

Owns: one transfer per object, however many threads ask. Must not know: catalogs, paths, FUSE, how objects
are verified (``arrival``).
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from cvmfs_graphdriver.client.cache.arrival import Arrival, Wanted
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.counters import ClientCounters, Count
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.kernel.waiting.watch import waiting

__all__ = ["Claim", "Fetcher"]

_PATIENCE = 10.0
"""Seconds that a reader waits for another's transfer to begin; then it makes one itself."""


class Claim:
    """The right and the duty to bring one object into the cache, for all who wait for it.

    ``ended`` is called with None when it is there, or with the error that prevented it, and ``begun`` when
    this process begins to fetch it.
    """

    def __init__(
        self,
        wanted: Wanted,
        cache: Cache,
        ended: Callable[[BaseException | None], None] = lambda _: None,
        begun: Callable[[], object] = lambda: None,
    ) -> None:
        self.wanted = wanted
        self._cache = cache
        self.end = ended
        self._begun = begun

    @property
    def path(self) -> str:
        """Its path in the cache, whether it is there or not."""
        return self._cache.path(self.wanted.name.digest, self.wanted.compression)

    def carry_out(self, deliver: Callable[[Arrival], None]) -> int:
        """Let ``deliver`` fill an arrival; returns a descriptor of the object.

        Raises what ``deliver`` raises; CacheError. The claim ends in any case.
        """
        self._begun()
        try:
            arrival = Arrival(self.wanted, self._cache)
            try:
                deliver(arrival)
                descriptor = arrival.keep()
            except BaseException:
                arrival.abandon()
                raise
        except BaseException as error:
            self.end(error)
            raise
        self.end(None)
        return descriptor

    def fetch(self, deliver: Callable[[Arrival], None]) -> None:
        """Like ``carry_out``, but without a descriptor."""
        os.close(self.carry_out(deliver))

    def stored(self, size: int, crc32: int) -> None:
        """Another of our processes has put it into the cache, verified."""
        self._cache.note_stored(self.wanted.record(self._cache)._replace(size=size, crc32=crc32))
        self.end(None)


class Fetcher:
    """Gives descriptors of cached objects; safe for any number of threads."""

    def __init__(self, transfer: Transfer, cache: Cache, counters: ClientCounters) -> None:
        self._transfer = transfer
        self._cache = cache
        self._counters = counters
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}

    def open(self, wanted: Wanted, transfer: Transfer | None = None) -> int:
        """A descriptor of the object, which belongs to the caller.

        ``transfer`` is for objects that are not on the usual servers.

        Raises TransferError, DigestMismatchError, FormatError, CacheError.
        """
        descriptor = self._cached(wanted)
        if descriptor is not None:
            self._counters.add_hit(os.fstat(descriptor).st_size)
            return descriptor
        self._counters.add(Count.MISSES)
        while True:
            mine: Future[None] = Future()
            with self._lock:
                running = self._running.setdefault(self._name(wanted), mine)
            if running is mine:
                return self._lead(wanted, transfer or self._transfer, mine)
            if not self._wait(running, wanted):
                return self._fetch(Claim(wanted, self._cache), transfer or self._transfer)
            descriptor = self._cached(wanted)
            if descriptor is not None:
                return descriptor

    def fetch(self, wanted: Wanted) -> None:
        """Make sure that the object is in the cache. Raises as ``open`` does."""
        os.close(self.open(wanted))

    def path(self, wanted: Wanted) -> str:
        """The path of an object in the cache, whether it is there or not."""
        return self._cache.path(wanted.name.digest, wanted.compression)

    def cached(self, wanted: Wanted) -> bool:
        """Whether an object seems to be in the cache; does not count as a use."""
        return self._cache.has(wanted.name.digest, wanted.size if wanted.exact else None, wanted.compression)

    def forget_writer(self, process: int) -> None:
        """Clean up after one of our processes that wrote to the cache and has ended."""
        self._cache.forget_writer(process)

    def claim(self, wanted: Wanted, arrived: Callable[[str], None]) -> Claim | None:
        """Claim an object, which the caller then has to fetch.

        None if it is in the cache or on its way there; then ``arrived`` is called with its path when it is
        there.
        """
        mine: Future[None] = Future()
        with self._lock:
            running = self._running.setdefault(self._name(wanted), mine)
        if running is not mine:
            path = self.path(wanted)
            running.add_done_callback(lambda ended: None if ended.exception() else arrived(path))
            return None
        claim = self._claim(wanted, mine)
        if self.cached(wanted):
            claim.end(None)
            arrived(claim.path)
            return None
        return claim

    def _lead(self, wanted: Wanted, transfer: Transfer, future: Future[None]) -> int:
        """Fetch for all who wait for ``future``."""
        claim = self._claim(wanted, future)
        try:
            # Another thread may have fetched it since the cache was asked.
            descriptor = self._cached(wanted)
        except BaseException as error:
            claim.end(error)
            raise
        if descriptor is not None:
            claim.end(None)
            return descriptor
        return self._fetch(claim, transfer)

    @staticmethod
    def _fetch(claim: Claim, transfer: Transfer) -> int:
        wanted = claim.wanted
        return claim.carry_out(
            lambda arrival: transfer.fetch(wanted.location, arrival, key=wanted.key, span=wanted.span)
        )

    @staticmethod
    def _wait(running: Future[None], wanted: Wanted) -> bool:
        """Wait for the end of another's transfer. False if it has not even begun after a while.

        One that has begun ends: whoever makes it has a limit.
        """
        with waiting(f"{wanted.location}, which another thread fetches"):
            while not running.done():
                started = running.running()
                wait([running], _PATIENCE)
                if not running.done() and not started and not running.running():
                    return False
        running.result()
        return True

    def _cached(self, wanted: Wanted) -> int | None:
        size = wanted.size if wanted.exact else None
        return self._cache.open(wanted.name.digest, size, wanted.compression)

    def _name(self, wanted: Wanted) -> str:
        return self._cache.name(wanted.name.digest, wanted.compression)

    def _claim(self, wanted: Wanted, future: Future[None]) -> Claim:
        ended = partial(self._end, self._name(wanted), future)
        return Claim(wanted, self._cache, ended, future.set_running_or_notify_cancel)

    def _end(self, name: str, future: Future[None], error: BaseException | None) -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        with self._lock:
            del self._running[name]
