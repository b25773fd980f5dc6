"""The harness of the fuzz tests: it finds each thing that it exists for, and names the input."""

import ctypes
import logging
import subprocess
import time

import pytest

from tests.support import fuzzing
from tests.support.fuzzing import REFUSED, fuzz


def _hang(number: int) -> None:
    if number == 3:
        ctypes.PyDLL(None).usleep(60_000_000)  # the interpreter gets no chance to end it


def _hang_in_a_program(number: int) -> None:
    if number == 3:
        subprocess.run(["sleep", "60"], check=True)


def _crash(number: int) -> None:
    if number == 3:
        ctypes.string_at(0)


def _grow(number: int) -> None:
    if number == 3:
        bytearray(b"x" * (fuzzing.GROWTH + (50 << 20)))


def _fail(number: int) -> None:
    if number == 3:
        raise ZeroDivisionError


def _log(number: int) -> None:
    try:
        _fail(number)
    except ZeroDivisionError:
        logging.getLogger(__name__).exception("a defect")


def test_what_became_of_the_inputs_is_counted() -> None:
    def use(number: int) -> str | None:
        if number % 5 == 0:
            raise KeyError
        return "even" if number % 2 == 0 else None

    assert fuzz(use, range(100), own=LookupError) == {REFUSED: 20, "even": 40, "used": 40}


@pytest.mark.parametrize(
    ("use", "verdict"),
    [
        (_hang, "it took more than 1 s"),
        (_hang_in_a_program, "it took more than 1 s"),
        (_crash, "the process ended with -11"),
        (_grow, "it made the process grow"),
        (_fail, "ZeroDivisionError"),
        (_log, "AssertionError"),
    ],
)
def test_limits(use, verdict, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    if "took" in verdict:
        monkeypatch.setattr(fuzzing, "SECONDS", 1.0)
        monkeypatch.setattr(fuzzing, "_lost", lambda: 0.0)
    monkeypatch.setattr(fuzzing, "GROWTH", 20 << 20)
    began = time.monotonic()
    with pytest.raises(AssertionError, match=rf"(?s)input 1: .*{verdict}.*: 3\n.*{use.__name__}\n"):
        fuzz(use, [2, 3, 4])
    assert time.monotonic() - began < 30


def test_waiting_for_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SECONDS", 0.3)
    monkeypatch.setattr(fuzzing, "_lost", time.monotonic)
    assert fuzz(lambda _: time.sleep(1), [1]) == {"used": 1}
