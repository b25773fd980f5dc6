"""A process that gives the kernel whole files for its page cache unasked, and the other end of its channel.

Owns: getting content from the client's cache into the kernel's (FUSE_NOTIFY_STORE). Must not know: which
files, and when.

The kernel may make this process wait for a page until a READ of it is answered, so nobody may wait for this
process without a limit. Messages that cannot be sent at once are dropped: giving files is optional. The
process has a descriptor of the device, which would keep the mount alive, but it ends when its channel is
closed.
"""

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.kernel.errors import KernelError
from cvmfs_graphdriver.kernel.fuse.device import offer_content

if TYPE_CHECKING:
    from cvmfs_graphdriver.kernel.child import Child

__all__ = ["PageCache"]

_DEATHS = 3
"""A process that has died this many times is not started again."""


class PageCache:
    """The kernel's page cache for the files of one mount; safe for any number of threads."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._deaths = 0
        self._ticket = 0
        self._settled = 0
        self._progress = threading.Condition(self._lock)
        self._closing = False

    def offer(self, inode: int, size: int, path: str) -> None:
        """Give the kernel the content of a file, which is in the file ``path``, if it knows the inode."""
        with self._lock:
            self._send((inode, size, path))

    def settle(self, seconds: float) -> None:
        """Wait until everything that was offered has been given to the kernel, at most this long."""
        with self._lock:
            if self._child is None:
                return
            self._ticket += 1
            ticket = self._ticket
            if self._send(ticket):
                self._progress.wait_for(lambda: self._settled >= ticket or self._child is None, seconds)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closing = True
            child = self._child
            if child is not None:
                child.hang_up()

    def _send(self, message: object) -> bool:
        child = self._child or self._start()
        if child is not None:
            with contextlib.suppress(BrokenPipeError):
                return child.channel.offer(message)
        return False

    def _start(self) -> "Child | None":
        if self._closing or self._deaths >= _DEATHS:
            return None
        from cvmfs_graphdriver.kernel.child import Child

        with contextlib.suppress(KernelError):
            child = Child(__name__, str(self._device), descriptors=(self._device,))
            child.never_block()
            self._child = child
            threading.Thread(target=self._receive, args=(child,), name="page cache", daemon=True).start()
        return self._child

    def _receive(self, child: "Child") -> None:
        """A thread that runs as long as the process."""
        with contextlib.suppress(EOFError):
            while True:
                ticket = child.channel.receive()
                with self._lock:
                    self._settled = ticket
                    self._progress.notify_all()
        with self._lock:
            self._child = None
            self._deaths += not self._closing
            self._progress.notify_all()
        child.wait()


def _main() -> None:
    device = int(sys.argv[1])
    channel = Channel.of_child()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            message = channel.receive()
            if isinstance(message, int):
                channel.send(message)
                continue
            inode, size, path = message
            with contextlib.suppress(OSError):  # evicted since, or no longer mounted
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    content = os.pread(descriptor, size + 1, 0)
                finally:
                    os.close(descriptor)
                if len(content) == size:
                    offer_content(device, inode, content)


if __name__ == "__main__":
    _main()
