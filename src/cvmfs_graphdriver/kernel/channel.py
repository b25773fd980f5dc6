"""Messages between processes of ours, over two pipes, one for each direction.

Owns: one end of such a pair, and the form of a message: its length, then a value as ``marshal`` writes it,
that is, numbers, strings, bytes, and tuples, lists and dictionaries of these. Both ends run the same program,
and only processes that we start get a pipe, so neither versions nor hostile data matter. Must not know: what
a message means, how the process at the other end was started (``child``).
"""

import marshal
import os
import select
import struct
from typing import Any, Self

__all__ = ["Channel"]

_LENGTH = struct.Struct("<I")
_ROOM = 1 << 16
_ATOMIC = select.PIPE_BUF


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
        """The end of a process that was started: its standard input and output, which nobody else may use."""
        sending = os.dup(1)
        os.dup2(2, 1)
        return cls(0, sending)

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Both ends, for a process that is about to fork."""
        first_in, second_out = os.pipe()
        second_in, first_out = os.pipe()
        return cls(first_in, first_out), cls(second_in, second_out)

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message comes."""
        return self._receiving

    def send(self, message: Any) -> None:
        """Send a message; waits while the pipe is full. Raises BrokenPipeError: the other end is closed."""
        data = memoryview(_packed(message))
        while data:
            data = data[os.write(self._sending, data) :]

    def offer(self, message: Any) -> bool:
        """Send a short message unless that would block; the descriptor must be a non-blocking one.

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
        """Whether nothing arrives within this time, neither a message nor the end; None waits for ever."""
        if len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if len(self._received) >= _LENGTH.size + length:
                return False
        return not self._poll.poll(None if seconds is None else seconds * 1000)

    def receive(self) -> Any:
        """Wait for the next message. Raises EOFError: the other end is closed."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        return marshal.loads(self._take(length))  # noqa: S302 - from a process of our own

    def close(self) -> None:
        """Close this end."""
        os.close(self._receiving)
        os.close(self._sending)

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            data = os.read(self._receiving, max(_ROOM, size))
            if not data:
                raise EOFError
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _packed(message: Any) -> bytes:
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data
