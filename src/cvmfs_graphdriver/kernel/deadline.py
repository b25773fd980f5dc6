"""System calls that must not wait without a limit: a FUSE server may never answer.

Owns: the thread that waits in place of the caller. A thread cannot be interrupted; it ends when the kernel
answers, or with the process. Must not know: which calls they are.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["within"]

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
