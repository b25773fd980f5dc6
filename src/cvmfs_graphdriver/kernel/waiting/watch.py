"""Waits that take long: they are logged, with what is waited for.

Owns: what threads say that they wait for, and the log line about a thread that has been busy with one thing
for more than ``LONG`` seconds; it comes again whenever that time has doubled. A thread that says nothing is
shown where it is in our code, so no wait goes unseen. Must not know: what threads do, and what ends their
waits: each wait has a limit where it begins.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["LONG", "Busy", "Watch", "waiting"]

LONG = 10.0
"""Seconds from which on a wait is logged."""
_FRAMES = 3
_PACKAGE = os.sep + __name__.partition(".")[0] + os.sep
_waits: dict[int, tuple[float, str]] = {}
"""Since when, and for what, by thread."""
_log = logging.getLogger(__name__)


class Busy(NamedTuple):
    """What a thread does now; ``number`` tells it from the thread's other tasks of the same kind."""

    thread: int
    number: float
    name: str = ""


class _Seen(NamedTuple):
    task: Busy
    since: float
    told_after: float


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Note that this thread waits for ``what`` until the end of the block."""
    thread = threading.get_ident()
    outer = _waits.get(thread)
    _waits[thread] = time.monotonic(), what
    try:
        yield
    finally:
        if outer is None:
            del _waits[thread]
        else:
            _waits[thread] = outer


class Watch:
    """Looks at threads that have noted what they wait for, and at those that have a task."""

    def __init__(self) -> None:
        self.tasks: Callable[[], Iterable[Busy]] = tuple
        """The tasks of the moment, at most one for each thread."""
        self._seen: dict[int, _Seen] = {}

    def look(self, now: float) -> None:
        """Log what has taken long; to be called every second or so. ``now`` is from ``time.monotonic``."""
        waits = dict(_waits)
        tasks = {thread: Busy(thread, since) for thread, (since, _) in waits.items()}
        tasks.update((task.thread, task) for task in self.tasks())
        before, self._seen = self._seen, {}
        for thread, task in tasks.items():
            seen = before.get(thread)
            if seen is None or seen.task != task:
                seen = _Seen(task, now if task.name else task.number, LONG)
            elapsed = now - seen.since
            if elapsed >= seen.told_after:
                what = waits.get(thread)
                _log.warning(
                    "%s has been waiting for %.0f s %s",
                    task.name or _name_of(thread),
                    elapsed,
                    f"for {what[1]}" if what else f"in {_place_of(thread)}",
                )
                seen = seen._replace(told_after=2 * elapsed)
            self._seen[thread] = seen


def _name_of(thread: int) -> str:
    return next((each.name for each in threading.enumerate() if each.ident == thread), "a thread")


def _place_of(thread: int) -> str:
    """Where a thread is in our code, innermost first."""
    places: list[str] = []
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None and len(places) < _FRAMES:
        code = frame.f_code
        _, ours, file = code.co_filename.rpartition(_PACKAGE)
        if ours:
            places.append(f"{code.co_name} ({file}:{frame.f_lineno})")
        frame = frame.f_back
    return ", called by ".join(places) or "an unknown place"
