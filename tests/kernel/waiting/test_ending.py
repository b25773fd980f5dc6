"""A daemon ends at whatever moment it is told to."""

import signal
import subprocess
import sys

import pytest

_PROGRAM = """
import os, signal, sys
from cvmfs_graphdriver.kernel.waiting.ending import EndSignal

number, step = map(int, sys.argv[1:])
seen = 0


def send(frame, event, _):
    # At the step-th line of Python that runs while the process waits, or else before it waits.
    global seen
    if frame.f_globals["__name__"] in ("threading", EndSignal.__module__):
        seen += event == "line"
        if seen == step:
            seen += 1
            os.kill(os.getpid(), number)
    return send


ending = EndSignal()
if step == 0:
    os.kill(os.getpid(), number)
sys.settrace(send)
signal.setitimer(signal.ITIMER_REAL, 0.5)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))  # there are fewer steps
found = ending.wait()
sys.settrace(None)
assert found == number, found
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_a_signal_is_never_lost_nor_waited_for(number: int, step: int) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(int(number)), str(step)]
    subprocess.run(command, check=True, timeout=20)
