"""What a client has done: numbers that only grow, and the time of the last I/O error.

Owns: the counting, and the names of what is counted. Must not know: how numbers are presented.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

__all__ = ["LATENCY_BOUNDS", "ClientCounters", "Count", "Source", "SourceKind", "Traffic"]

LATENCY_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper bounds of the buckets of the latency histogram, in seconds."""


class Count(StrEnum):
    """The events that are counted."""

    DOWNLOADS = "downloads"
    """Successful transfers."""
    BYTES_RECEIVED = "bytes_received"
    """Bytes received over the network."""
    HITS = "hits"
    """Requested objects that were in the cache."""
    MISSES = "misses"
    """Requested objects that were not in the cache."""
    OPENS = "opens"
    """Files that users opened."""
    DIRECTORY_OPENS = "directory_opens"
    """Directories that users opened."""
    IO_ERRORS = "io_errors"
    """Errors that users saw."""
    CACHE_FULL = "cache_full"
    """Objects that could not be stored because the disk of the cache was full."""


class SourceKind(StrEnum):
    """Where an object can come from."""

    CACHE = "cache"
    PROXY = "proxy"
    HOST = "host"
    """A server, without a proxy."""


class Source(NamedTuple):
    """Where objects came from; ``name`` is the proxy's name or the server's URL."""

    kind: SourceKind
    name: str = ""


class Traffic(NamedTuple):
    """How much came from one source."""

    objects: int
    size: int


_CACHE = Source(SourceKind.CACHE)


class ClientCounters:
    """The counters of one client; safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Count] = Counter()
        self._failures: Counter[str] = Counter()
        self._objects: Counter[Source] = Counter()
        self._bytes: Counter[Source] = Counter()
        self._latencies = [0] * (len(LATENCY_BOUNDS) + 1)
        self._seconds = 0.0
        self.last_io_error = 0.0
        """Unix time of the last error that a user saw, 0 for never."""
        self.last_io_error_text = ""
        """Which file that error was about, and why."""

    def add(self, count: Count) -> None:
        """Count one event."""
        with self._lock:
            self._counts[count] += 1

    def add_download(self, size: int, seconds: float, source: Source) -> None:
        """Count one successful transfer."""
        bucket = sum(seconds > bound for bound in LATENCY_BOUNDS)
        with self._lock:
            self._counts[Count.DOWNLOADS] += 1
            self._counts[Count.BYTES_RECEIVED] += size
            self._objects[source] += 1
            self._bytes[source] += size
            self._latencies[bucket] += 1
            self._seconds += seconds

    def add_failure(self, kind: str) -> None:
        """Count one failed attempt of a transfer; ``kind`` is the name of a ``Failure``."""
        with self._lock:
            self._failures[kind.lower()] += 1

    def add_hit(self, size: int) -> None:
        """Count one object of ``size`` bytes that was in the cache."""
        with self._lock:
            self._counts[Count.HITS] += 1
            self._objects[_CACHE] += 1
            self._bytes[_CACHE] += size

    def add_io_error(self, when: float, text: str) -> None:
        """Count one error that a user saw at the Unix time ``when``; ``text`` says in which file, and why."""
        with self._lock:
            self._counts[Count.IO_ERRORS] += 1
            self.last_io_error = when
            self.last_io_error_text = text

    def reset_errors(self) -> None:
        """Forget the errors that users saw."""
        with self._lock:
            self._counts[Count.IO_ERRORS] = 0
            self.last_io_error = 0.0
            self.last_io_error_text = ""

    def __getitem__(self, count: Count) -> int:
        with self._lock:
            return self._counts[count]

    def counts(self) -> Mapping[Count, int]:
        """A copy of all counts."""
        with self._lock:
            return {count: self._counts[count] for count in Count}

    def failures(self) -> Mapping[str, int]:
        """Failed attempts of transfers by kind: the name of a ``Failure`` in lower case."""
        with self._lock:
            return dict(self._failures)

    def traffic(self) -> Mapping[Source, Traffic]:
        """How much came from each source."""
        with self._lock:
            return {source: Traffic(number, self._bytes[source]) for source, number in self._objects.items()}

    @property
    def transfer_seconds(self) -> float:
        """The total duration of all successful transfers, in seconds."""
        return self._seconds

    @property
    def latencies(self) -> tuple[int, ...]:
        """Successful transfers by duration: one number per bound, and one for those above the last."""
        with self._lock:
            return tuple(self._latencies)
