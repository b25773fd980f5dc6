"""Timing two ways of doing one thing, in turn, so that the machine's moods hit both.

Owns: the order of runs and the table. Must not know: what is timed.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

__all__ = ["Pair", "measure"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Medians in seconds, and the median of the ratios of each pair of runs."""

    what: str
    ours: float
    peer: float
    ratio: float
    runs: int

    def figures(self) -> dict[str, object]:
        """For the JSON file."""
        return asdict(self)


def measure(what: str, ours: Callable[[], object], peer: Callable[[], object], *, runs: int = 5) -> Pair:
    """Time both, one after the other, ``runs`` times; print and return the result."""
    times = [(_time(ours), _time(peer)) for _ in range(runs)]
    pair = Pair(
        what,
        statistics.median(mine for mine, _ in times),
        statistics.median(theirs for _, theirs in times),
        statistics.median(mine / theirs for mine, theirs in times),
        runs,
    )
    print(f"{what:60} ours {pair.ours:8.3f} s   peer {pair.peer:8.3f} s   ratio {pair.ratio:6.2f}")
    return pair


def _time(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
