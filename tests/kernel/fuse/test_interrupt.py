"""Which signals are deadly."""

import os

import pytest

from cvmfs_graphdriver.kernel.fuse.interrupt import dies, is_dying


def status(
    *, pending: int = 0, shared: int = 0, blocked: int = 0, ignored: int = 0, caught: int = 0
) -> bytes:
    masks = {"SigPnd": pending, "ShdPnd": shared, "SigBlk": blocked, "SigIgn": ignored, "SigCgt": caught}
    return b"Name:\tx\nThreads:\t1\n" + b"".join(
        f"{name}:\t{sum(1 << number - 1 for number in [value] if number):016x}\n".encode()
        for name, value in masks.items()
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (status(), False),
        (status(pending=9), True),
        (status(shared=9, blocked=9, ignored=9, caught=9), True),
        (status(shared=15), True),
        (status(pending=11), True),
        (status(shared=15, caught=15), False),
        (status(shared=15, ignored=15), False),
        (status(shared=15, blocked=15), False),
        (status(shared=15, caught=2), True),
        (status(shared=17), False),
        (status(shared=28), False),
        (status(shared=20), False),
        (status(shared=64), True),
        (b"", False),
    ],
)
def test_signals(text: bytes, expected: bool) -> None:
    assert dies(text) == expected


def test_processes() -> None:
    assert not is_dying(os.getpid())
    assert not is_dying(0), "somebody whom we cannot see"
    assert is_dying(2**22 + 1), "gone"
