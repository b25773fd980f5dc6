"""Messages that go whole through two pipes, one for either direction.

Owns: one end of them. Must not know: what a message means, how the process at the other end was started
(``child``). Both ends are the same program, so messages are what ``marshal`` takes: numbers, texts, bytes,
tuples and lists of these.
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


def _packed(message: Any) -> bytes:
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data
