"""Runs code on many inputs, in a process of its own, within limits that are the same for all fuzz tests.

An input may end in an error of ours. It may not end in another exception, log one, kill the process, take
more than ``SECONDS``, or make the process grow by more than ``GROWTH`` bytes since the first input. Time in
which processes had to wait for a processor does not count.

The process is watched from outside, so that an endless loop in a library is found, and ended, like any other.
"""

import ctypes
import faulthandler
import itertools
import logging
import mmap
import os
import pickle
import resource
import select
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["GROWTH", "REFUSED", "SECONDS", "fuzz"]

SECONDS = 10.0
"""What one input may take on a machine that has nothing else to do."""
GROWTH = 200 << 20
"""Bytes of resident memory by which the process may grow."""
REFUSED = "refused"
"""What became of inputs that ended in an error of ours."""

_PR_SET_PDEATHSIG = 1
_LOOK, _LAST_WORDS = 0.1, 1.0
_TRACE_LIMIT, _REPORT_LIMIT, _SHOWN = 64 << 10, 64 << 10, 500
_progress = struct.Struct("<Qd")  # the input's number, and when it began
_Input = TypeVar("_Input")


def fuzz(
    use: Callable[[_Input], str | None],
    inputs: Iterable[_Input],
    *,
    own: type[Exception] = CvmfsGraphdriverError,
) -> Counter[str]:
    """Use every input; counts what ``use`` returned, and what it refused by an error of the class ``own``.

    ``inputs`` must give the same inputs each time. Raises AssertionError, naming the input: it broke a limit.
    """
    progress, trace = mmap.mmap(-1, _progress.size), os.memfd_create("trace")
    receiver, sender = os.pipe()
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)  # with all that it starts
        os.close(receiver)
        _work(use, inputs, own, progress, trace, sender)
    os.close(sender)
    try:
        data, verdict = _watch(pid, progress, receiver)
    finally:
        _kill_group(pid)
        _, status = os.waitpid(pid, 0)
        told = os.pread(trace, _TRACE_LIMIT, 0).decode("utf-8", "replace")
        os.close(trace)
        os.close(receiver)
    number, _ = _progress.unpack(progress)
    if not verdict and not data:
        verdict = f"the process ended with {os.waitstatus_to_exitcode(status)}"
    counts: Counter[str] = Counter()
    if not verdict:
        verdict, counts, seconds, longest, growth = pickle.loads(data)  # noqa: S301  our own
    if verdict:
        bad = next(itertools.islice(inputs, number, None), None)
        raise AssertionError(f"input {number}: {verdict}: {repr(bad)[:_SHOWN]}\n{told}")
    print(
        f"{sum(counts.values())} inputs in {seconds:.0f} s, the longest took {longest:.2f} s, "
        f"growth {growth >> 20} MiB: {dict(counts.most_common())}"
    )
    return counts


def _work(
    use: Callable[[_Input], str | None],
    inputs: Iterable[_Input],
    own: type[Exception],
    progress: mmap.mmap,
    trace: int,
    sender: int,
) -> None:
    """What the new process does, until it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever kills pytest ends this, too
    faulthandler.enable(trace)
    errors = _Errors(logging.ERROR)
    logging.getLogger().handlers[:] = [errors]  # instead of pytest's, which keep everything
    counts: Counter[str] = Counter()
    base, longest, growth, verdict = _most_memory(), 0.0, 0, ""
    begun = began = time.monotonic()
    try:
        for number, each in enumerate(inputs):
            _progress.pack_into(progress, 0, number, began)
            try:
                counts[use(each) or "used"] += 1
            except own:
                counts[REFUSED] += 1
            errors.raise_first()
            now = time.monotonic()
            longest, began = max(longest, now - began), now
            growth = _most_memory() - base
            if growth > GROWTH:
                verdict = f"it made the process grow to {growth} bytes more than at first"
                break
    except BaseException as error:  # noqa: BLE001  any other is a finding
        verdict = f"{type(error).__name__}"
        os.write(trace, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))
    finally:
        report = (verdict, counts, time.monotonic() - begun, longest, growth)
        os.write(sender, pickle.dumps(report))
        os._exit(0)


def _watch(pid: int, progress: mmap.mmap, receiver: int) -> tuple[bytes, str]:
    """What the process reported; or why it was ended, after it was made to tell where it is."""
    base, verdict = _memory(pid), ""
    seen, lost = -1, 0.0
    waiting = select.poll()
    waiting.register(receiver, select.POLLIN)
    while not waiting.poll(_LOOK * 1000):
        number, began = _progress.unpack(progress)
        if number != seen:
            seen, lost = number, _lost()
        if began and time.monotonic() - began > SECONDS + _lost() - lost:
            verdict = f"it took more than {SECONDS:g} s"
        elif _memory(pid) - base > GROWTH:
            verdict = f"it made the process grow by more than {GROWTH} bytes"
        if verdict:
            os.kill(pid, signal.SIGABRT)
            waiting.poll(_LAST_WORDS * 1000)
            return b"", verdict
    return os.read(receiver, _REPORT_LIMIT), ""


class _Errors(logging.Handler):
    """What threads log as a defect."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._first: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self._first = self._first or record

    def raise_first(self) -> None:
        """Raises AssertionError: an error has been logged."""
        if self._first is not None:
            error = self._first.exc_info[1] if self._first.exc_info else None
            raise AssertionError(f"logged: {self._first.getMessage()}") from error


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _lost() -> float:
    """Seconds since the machine started in which some process waited for a processor; 0 if it keeps none."""
    try:
        with open("/proc/pressure/cpu", "rb") as file:
            some = file.readline()
    except OSError:
        return 0.0
    return int(some.rpartition(b"total=")[2]) / 1e6


def _memory(pid: int) -> int:
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
