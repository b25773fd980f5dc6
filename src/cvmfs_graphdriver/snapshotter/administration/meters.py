"""What the snapshotter counts and times while it runs.

Owns: names and labels of its metrics for Prometheus; every label has few values: configured repositories, and
words of ours. Must not know: how they are served.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from cvmfs_graphdriver.snapshotter.lookup import NotLazy
from cvmfs_graphdriver.snapshotter.snapshot import LazySource

__all__ = ["Meters", "Prepared", "Timing"]

_PREFIX: Final = "cvmfs_snapshotter"
_BOUNDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Prepared(StrEnum):
    """What became of a call of Prepare."""

    LAZY = "lazy"
    """A layer of an image, found in a repository."""
    PULLED = "pulled"
    """A layer of an image, which containerd must pull."""
    CONTAINER = "container"
    """Anything else."""
    FAILED = "failed"


@dataclass
class Timing:
    """A call of Prepare that is being timed."""

    outcome: Prepared = Prepared.FAILED


class Meters:
    """Counters of one process; safe for any number of threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._hits = Counter(
            f"{_PREFIX}_hits",
            "Layers found in a repository, which need not be pulled",
            ["repository", "found_by"],
            registry=self._registry,
        )
        self._misses = Counter(
            f"{_PREFIX}_misses", "Layers that must be pulled", ["reason"], registry=self._registry
        )
        self._prepare = Histogram(
            f"{_PREFIX}_prepare_seconds",
            "Duration of Prepare: of layers that are lazy, layers that must be pulled, and of containers",
            ["outcome"],
            buckets=_BOUNDS,
            registry=self._registry,
        )

    def looked_up(self, found: LazySource | NotLazy) -> None:
        """A layer was looked for."""
        if isinstance(found, LazySource):
            self._hits.labels(found.layer.fqrn, found.key).inc()
        else:
            self._misses.labels(found.reason).inc()

    @contextmanager
    def prepare(self) -> Iterator[Timing]:
        """Time the block, which is a call of Prepare and says what became of it."""
        timing, began = Timing(), time.monotonic()
        try:
            yield timing
        finally:
            self._prepare.labels(timing.outcome).observe(time.monotonic() - began)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
