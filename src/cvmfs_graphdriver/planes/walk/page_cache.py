"""A process that gives the kernel whole files for its page cache unasked, and the other end of its channel.

Owns: getting content from the client's cache into the kernel's (FUSE_NOTIFY_STORE). Must not know: which
files, and when.

Files that lie scattered on a disk are found and read by several threads at once, since one would wait for the
disk most of the time.

The kernel may make this process wait for a page until a READ of it is answered, so nobody may wait for this
process without a limit. Messages that cannot be sent at once are dropped: giving files is optional. The
process has a descriptor of the device, which would keep the mount alive, but it ends when its channel is
closed.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cvmfs_graphdriver.client.objects.background import Background
from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.kernel.errors import KernelError
from cvmfs_graphdriver.kernel.fuse.device import offer_content

if TYPE_CHECKING:
    from cvmfs_graphdriver.kernel.child import Child

__all__ = ["Offer", "PageCache"]

_DEATHS = 3
"""A process that has died this many times is not started again."""
_THREADS = 16
_TOGETHER = 16
"""The number of files in a message, which must be short enough not to block."""


class Offer(NamedTuple):
    """The content of a file, which is in the file ``path`` of the client's cache.

    If it is not ``is_given``, it is only brought into memory, so that a request for it is answered soon. For
    one that ``is_sought`` nobody knows whether it is in the cache.
    """

    inode: int
    size: int
    path: str
    is_given: bool = True
    is_sought: bool = False


class PageCache:
    """The kernel's page cache for the files of one mount; safe for any number of threads."""

    def __init__(self, device: int) -> None:
        self.absent: Callable[[Collection[int]], None] = lambda _: None
        """Called with offered files that are not in the cache."""
        self._device = device
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._deaths = 0
        self._ticket = 0
        self._settled = 0
        self._progress = threading.Condition(self._lock)
        self._closing = False

    def offer(self, files: Sequence[Offer]) -> None:
        """Give the kernel the contents of files, if it knows their inodes."""
        with self._lock:
            for position in range(0, len(files), _TOGETHER):
                self._send([tuple(file) for file in files[position : position + _TOGETHER]])

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
                message = child.channel.receive()
                if isinstance(message, list):
                    self.absent(message)
                    continue
                with self._lock:
                    self._settled = message
                    self._progress.notify_all()
        with self._lock:
            self._child = None
            self._deaths += not self._closing
            self._progress.notify_all()
        child.wait()


class _Giver:
    """Reads files and gives them to the kernel."""

    def __init__(self, device: int, channel: Channel) -> None:
        self._device = device
        self._channel = channel
        self._sending = threading.Lock()
        self._threads = Background(_THREADS, "giver")
        self._unfinished = 0
        self._progress = threading.Condition()

    def run(self) -> None:
        """Work until the channel ends. Raises EOFError, BrokenPipeError."""
        while True:
            message = self._channel.receive()
            if isinstance(message, int):
                with self._progress:
                    self._progress.wait_for(lambda: not self._unfinished)
                self._send(message)
                continue
            with self._progress:
                self._unfinished += len(message)
            for file in message:
                self._threads.submit(partial(self._handle, Offer(*file)))

    def _handle(self, file: Offer) -> None:
        try:
            self._read(file)
        except FileNotFoundError:
            if file.is_sought:
                with contextlib.suppress(BrokenPipeError):
                    self._send([file.inode])
        except OSError:
            pass  # no longer mounted, or a reader will see the error
        finally:
            with self._progress:
                self._unfinished -= 1
                if not self._unfinished:
                    self._progress.notify_all()

    def _read(self, file: Offer) -> None:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not file.is_given:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
                return
            content = os.pread(descriptor, file.size + 1, 0)
        finally:
            os.close(descriptor)
        if len(content) == file.size:
            offer_content(self._device, file.inode, content)

    def _send(self, message: object) -> None:
        with self._sending:
            self._channel.send(message)


def _main() -> None:
    with contextlib.suppress(EOFError, BrokenPipeError):
        _Giver(int(sys.argv[1]), Channel.of_child()).run()
    os._exit(0)  # some threads may be waiting for the disk or the kernel


if __name__ == "__main__":
    _main()
