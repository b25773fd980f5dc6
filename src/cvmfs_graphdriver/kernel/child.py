"""A child process at the other end of two pipes, which ends when its parent does.

Owns: starting a module of this package as a process. Must not know: what the module does.

Heavy work beside serving is done in processes, not threads: threads share the interpreter's lock, and each
that runs keeps the others waiting.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress

from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.kernel.errors import KernelError

__all__ = ["Child", "interpreter", "start"]

_PIPE_SIZE = (
    1 << 20
)  # the most that the kernel allows to all users; the larger, the less the two ends wait for each other
_PATIENCE = 2.0


def interpreter() -> tuple[list[str], Mapping[str, str]]:
    """How to start this interpreter again: the first words of a command, and its environment.

    It finds the modules that this one finds. It does not search for site-packages, which takes 5 ms, nor in
    the working directory.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    return [sys.executable, "-P", "-S"], {**os.environ, "PYTHONPATH": paths}


def start(module: str, *words: str, descriptors: Collection[int] = ()) -> "subprocess.Popen[bytes]":
    """Start ``module`` as a program between two pipes; it inherits ``descriptors``. Raises OSError."""
    words_of_python, environment = interpreter()
    # In its own process group: Ctrl-C is for the process that waits for the result.
    return subprocess.Popen(
        [*words_of_python, "-m", module, *words],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
        pipesize=_PIPE_SIZE,
        pass_fds=descriptors,
    )


class Child:
    """A running process, and the channel to it."""

    def __init__(self, module: str, *words: str, descriptors: Collection[int] = ()) -> None:
        """Start ``module`` as a program; it inherits ``descriptors``. Raises KernelError."""
        try:
            self._process = start(module, *words, descriptors=descriptors)
        except OSError as error:
            raise KernelError(
                f"cannot start a process of {module}: {error.strerror}", error.errno or 0
            ) from error
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the process has pipes")
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.channel = Channel(self._stdout.fileno(), self._stdin.fileno())

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def never_block(self) -> None:
        """Make sending non-blocking, for ``Channel.offer``."""
        os.set_blocking(self._stdin.fileno(), False)

    def hang_up(self) -> None:
        """Tell it to end; what it has already sent can still be received."""
        self._stdin.close()

    def kill(self) -> None:
        """End it at once; ``wait`` must still be called."""
        self._process.kill()

    def wait(self) -> int:
        """Wait for it to end, kill it if it does not, and free everything; returns its exit code."""
        self.hang_up()
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # the kernel has not let go of it yet
                self._process.wait(_PATIENCE)
            code = -signal.SIGKILL
        self._stdout.close()
        return code
