"""What a client has done: numbers that only grow, and the time of the last failure.

Owns: the counting. Must not know: how numbers are shown.
"""

import threading
from collections import Counter
from collections.abc import Mapping

__all__ = ["LATENCY_BOUNDS", "Counters"]

LATENCY_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper bounds of the buckets of the latency histogram, in seconds."""


class Counters:
    """Named numbers; safe for any number of threads.

    ``downloads`` and ``bytes_received`` count what came over the network, ``hits`` and ``misses`` what was
    in the cache and what was not, ``opens`` and ``directory_opens`` what users opened, ``io_errors`` what
    they could not get; ``failure:<kind>`` counts failed attempts of transfers by kind, ``objects:<source>``
    and ``bytes:<source>`` what came from where: ``cache``, ``proxy <name>`` or ``host <URL>``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()
        self._latencies = [0] * (len(LATENCY_BOUNDS) + 1)
        self._seconds = 0.0
        self.last_io_error = 0.0
        """Unix time of the last error that a user saw, 0 for never."""

    def add(self, name: str, amount: int = 1) -> None:
        """Count ``amount`` more of ``name``."""
        with self._lock:
            self._values[name] += amount

    def add_download(self, size: int, seconds: float, source: str) -> None:
        """Count one successful transfer."""
        bucket = sum(seconds > bound for bound in LATENCY_BOUNDS)
        with self._lock:
            self._values["downloads"] += 1
            self._values["bytes_received"] += size
            self._values[f"objects:{source}"] += 1
            self._values[f"bytes:{source}"] += size
            self._latencies[bucket] += 1
            self._seconds += seconds

    def add_hit(self, size: int) -> None:
        """Count an object of so many bytes that was in the cache."""
        with self._lock:
            self._values["hits"] += 1
            self._values["objects:cache"] += 1
            self._values["bytes:cache"] += size

    def add_io_error(self, when: float) -> None:
        """Count an error that a user saw, at the Unix time ``when``."""
        with self._lock:
            self._values["io_errors"] += 1
            self.last_io_error = when

    def reset_errors(self) -> None:
        """Forget the errors that users saw."""
        with self._lock:
            self._values["io_errors"] = 0
            self.last_io_error = 0.0

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._values[name]

    def values(self) -> Mapping[str, int]:
        """A copy of all numbers."""
        with self._lock:
            return dict(self._values)

    @property
    def transfer_seconds(self) -> float:
        """Seconds that successful transfers took, added up."""
        return self._seconds

    @property
    def latencies(self) -> tuple[int, ...]:
        """Successful transfers by how long they took: one number for each bound, and one above all."""
        with self._lock:
            return tuple(self._latencies)
