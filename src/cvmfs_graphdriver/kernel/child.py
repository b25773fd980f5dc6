"""A process of our own at the end of two pipes, so that it never outlives whoever started it.

Owns: starting a module of this package as a process, and messages that go whole in either direction. Must
not know: what a message means. Both ends are the same program, so messages are what ``marshal`` takes:
numbers, texts, bytes, tuples and lists of these.

A process and not a thread, where much is to be done beside serving: threads share the interpreter's lock,
and what wakes one keeps another waiting.
"""

import marshal
import os
import select
import struct
import subprocess
import sys
from collections.abc import Collection
from typing import Any, Self

from cvmfs_graphdriver.kernel.errors import KernelError

__all__ = ["Channel", "Child"]

_LENGTH = struct.Struct("<I")
_PIPE_SIZE = 1 << 20  # what anybody may have; the less often the two ends wait for each other, the better
_ROOM = 1 << 16
_ATOMIC = select.PIPE_BUF
_PATIENCE = 2.0


class Channel:
    """One end: receives from one descriptor and sends to another. One thread may receive, one may send."""

    def __init__(self, receiving: int, sending: int) -> None:
        self._receiving = receiving
        self._sending = sending
        self._received = bytearray()
        self._poll = select.poll()
        self._poll.register(receiving, select.POLLIN)

    @classmethod
    def of_child(cls) -> Self:
        """The end of the process that was started: standard input and output, which nobody else may use."""
        sending = os.dup(1)
        os.dup2(2, 1)
        return cls(0, sending)

    def send(self, message: Any) -> None:
        """Wait until the message is on its way. Raises BrokenPipeError: there is no other end any more."""
        data = memoryview(_packed(message))
        while data:
            data = data[os.write(self._sending, data) :]

    def offer(self, message: Any) -> bool:
        """Send a short message unless that means to wait, which needs a descriptor that does not block.

        Says whether it was sent. Raises BrokenPipeError.
        """
        data = _packed(message)
        if len(data) > _ATOMIC:
            return False
        try:
            os.write(self._sending, data)
        except BlockingIOError:
            return False
        return True

    def is_quiet(self, seconds: float | None = 0) -> bool:
        """Whether nothing comes within this time; the end of the other side is something. None: for ever."""
        if len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if len(self._received) >= _LENGTH.size + length:
                return False
        return not self._poll.poll(None if seconds is None else seconds * 1000)

    def receive(self) -> Any:
        """Wait for the next message. Raises EOFError: there is no other end any more."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        return marshal.loads(self._take(length))  # noqa: S302 - from a process of our own

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            data = os.read(self._receiving, max(_ROOM, size))
            if not data:
                raise EOFError
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


class Child:
    """A running process, and the channel to it."""

    def __init__(self, module: str, *words: str, descriptors: Collection[int] = ()) -> None:
        """Start ``module`` as a program; it inherits ``descriptors``. Raises KernelError."""
        command = (sys.executable, "-P", "-m", module, *words)
        try:
            # In a process group of its own, for a Ctrl-C is the business of whoever waits for the result.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,
                pipesize=_PIPE_SIZE,
                pass_fds=descriptors,
            )
        except OSError as error:
            raise KernelError(
                f"cannot start a process of {module}: {error.strerror}", error.errno or 0
            ) from error
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("it has pipes")
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.channel = Channel(self._stdout.fileno(), self._stdin.fileno())

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def never_block(self) -> None:
        """From now on sending is for ``Channel.offer``."""
        os.set_blocking(self._stdin.fileno(), False)

    def hang_up(self) -> None:
        """Tell it to end; what it has sent can still be received."""
        self._stdin.close()

    def wait(self) -> int:
        """Give back everything when it has ended, or does not end by itself; returns its exit code."""
        self.hang_up()
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._stdout.close()
        return code


def _packed(message: Any) -> bytes:
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data
