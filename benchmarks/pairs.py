"""Results: two ways of doing one thing, or a single figure with a goal; and their table.

Owns: the order of runs, so that variations of the machine affect both ways, and the form of the results. Must
not know: what is timed.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

__all__ = ["Figure", "Pair", "Result", "figures", "markdown", "measure"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Medians in seconds, the median of the ratios of each pair of runs, and its goal, if any."""

    what: str
    ours: float
    peer: float
    ratio: float
    runs: int = 1
    goal: float | None = None

    def row(self) -> str:
        """A row of the table."""
        goal = "" if self.goal is None else f"≤ {self.goal:g}{_missed(self.ratio, self.goal)}"
        return f"| {self.what} | {self.ours:.3f} s | {self.peer:.3f} s | {self.ratio:.2f} | {goal} |"


@dataclass(frozen=True, slots=True)
class Figure:
    """A single figure in its unit, and its upper limit, if any."""

    what: str
    value: float
    unit: str
    goal: float | None = None

    def row(self) -> str:
        """A row of the table."""
        goal = "" if self.goal is None else f"≤ {self.goal:g} {self.unit}{_missed(self.value, self.goal)}"
        return f"| {self.what} | {self.value:.4g} {self.unit} | | | {goal} |"


Result = Pair | Figure


def measure(
    what: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    runs: int = 5,
    goal: float | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> Pair:
    """Time both, one after the other, ``runs`` times; ``prepare`` is called before each pair."""
    times = []
    for _ in range(runs):
        prepare()
        times.append((_time(ours), _time(peer)))
    return Pair(
        what,
        statistics.median(mine for mine, _ in times),
        statistics.median(theirs for _, theirs in times),
        statistics.median(mine / theirs for mine, theirs in times),
        runs,
        goal,
    )


def markdown(results: Sequence[Result]) -> str:
    """The table of docs/performance.md."""
    head = "| what | ours | peer | ratio | goal |\n|---|---|---|---|---|"
    return "\n".join([head, *(result.row() for result in results)])


def figures(results: Sequence[Result]) -> list[dict[str, object]]:
    """The same for the JSON file."""
    return [asdict(result) for result in results]


def _missed(value: float, goal: float) -> str:
    return "" if value <= goal else ", **missed**"


def _time(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
