"""The signal that ends a daemon.

Owns: receiving SIGTERM and SIGINT, and waiting for the first of them. Must not know: what the process does
until then.
"""

import signal
from queue import SimpleQueue

__all__ = ["EndSignal"]


class EndSignal:
    """Receives SIGTERM and SIGINT from now on. Make it in the main thread.

    Not a ``threading.Event``: a handler runs in the thread that waits, between any two of its steps, and
    would wait for ever if that thread held the event's lock at that moment. ``SimpleQueue.put`` is made for
    that.
    """

    def __init__(self) -> None:
        self._received: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._received.put(number))

    def wait(self) -> int:
        """Returns the number of the signal that came first; call it once, in the main thread."""
        return self._received.get()
