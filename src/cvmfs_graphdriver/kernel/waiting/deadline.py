"""Waiting for threads with a limit, and for system calls by threads: a FUSE server may never answer.

Owns: the thread that waits in place of the caller. A thread cannot be interrupted; it ends when the kernel
answers, or with the process. Must not know: which calls they are.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["end", "within"]

_ENDING = 60.0
_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """The result of ``call``. Raises TimeoutError: there is none yet; what ``call`` raises."""
    results: list[_Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="deadline", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def end(thread: threading.Thread) -> None:
    """Wait for a thread that has been told to end; if it does not, it is left alone, and the log says so."""
    thread.join(_ENDING)
    if thread.is_alive():
        _log.error("the thread %s does not end", thread.name)
