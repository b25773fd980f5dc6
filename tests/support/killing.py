"""Kills at random instants of what is going on.

Owns: whose turn it is, and when to kill. Must not know: the operations, what is killed.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["going_on"]


@contextmanager
def going_on(
    number: int, kills: int, seconds: Sequence[float], work: Callable[[int], None]
) -> Iterator[float]:
    """The operation whose turn it is goes on meanwhile; gives after how many seconds to kill.

    ``seconds`` says how long each kind of operation takes, and ``work`` does the kind with an index. The
    ``kills`` are spread over the kinds, and over the time that each takes.
    """
    kind, turn = number % len(seconds), number // len(seconds)
    turns = -(-kills // len(seconds))
    thread = threading.Thread(target=work, args=(kind,))
    thread.start()
    try:
        yield seconds[kind] * (turn + random.random()) / turns
    finally:
        thread.join()
