"""The requests that are being served, kept in memory that survives the server.

Owns: shared memory with one slot for each serving thread. The kernel writes a request directly into a slot,
which is cleared when the request has been answered. If the server dies, the next one, forked by the same
keeper, finds the unanswered requests in the slots and serves them. This works on every kernel; FUSE's own
notification for it came with Linux 6.9. Must not know: what requests mean, except that they begin with their
length.

A request must not kill one server after another for ever, so each slot counts the servers that died with it.
One that was killed from outside says little about the requests that it was serving.
"""

import mmap
import struct

from cvmfs_graphdriver.kernel.fuse.wire import REQUEST_BUFFER

__all__ = ["InFlight", "Slot"]

_u32 = struct.Struct("=I")
_DEATH, _KILL = 3, 1
_LIMIT = 12
"""The blame from which a request is given up: four servers that died, twelve that were killed."""


class Slot:
    """Room for one request, which is to be read into ``buffer``."""

    def __init__(self, memory: memoryview) -> None:
        self.buffer = memory[:REQUEST_BUFFER]
        self._blame = memory[REQUEST_BUFFER:]
        self.clear()

    @property
    def occupied(self) -> bool:
        """Whether there is an unanswered request."""
        return bool(_u32.unpack_from(self.buffer)[0])

    @property
    def is_hopeless(self) -> bool:
        """Whether too many servers have died with the request for another one to try."""
        return bool(_u32.unpack(self._blame)[0] >= _LIMIT)

    def blame(self, *, killed: bool) -> None:
        """The server died while it served this request; ``killed``: by somebody else."""
        (blame,) = _u32.unpack(self._blame)
        _u32.pack_into(self._blame, 0, blame + (_KILL if killed else _DEATH))

    def clear(self) -> None:
        """The request was answered."""
        _u32.pack_into(self.buffer, 0, 0)
        _u32.pack_into(self._blame, 0, 0)


class InFlight:
    """Slots in memory shared with child processes; created once, before the first server is forked."""

    def __init__(self, threads: int) -> None:
        size = -(-(REQUEST_BUFFER + _u32.size) // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = memoryview(mmap.mmap(-1, threads * size))
        self.slots = [
            Slot(memory[start : start + REQUEST_BUFFER + _u32.size])
            for start in range(0, threads * size, size)
        ]

    def blame(self, *, killed: bool) -> None:
        """The server has died. Call it before the next one is forked; ``killed``: somebody killed it."""
        for slot in self.slots:
            if slot.occupied:
                slot.blame(killed=killed)
