"""What a server tells its keeper all the time: that it lives, and which revision it shows.

Owns: memory shared by both. A server writes, its keeper reads; nobody waits for anybody. Must not know: what
the keeper makes of it.
"""

import mmap
import struct
import time
from typing import NamedTuple

from cvmfs_graphdriver.repository.digest import Digest

__all__ = ["Shown", "Vitals"]

_BEATS = struct.Struct("=Q")
_SHOWN = struct.Struct("=d80s")


class Shown(NamedTuple):
    """The root catalog that a server opened last, as text, and when, on the clock ``time.monotonic``."""

    root: str
    since: float


class Vitals:
    """The signs of life of one server after the other; created before the first is forked."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def beat(self) -> None:
        """A server lives."""
        _BEATS.pack_into(self._memory, 0, self.beats + 1)

    @property
    def beats(self) -> int:
        """A number that changes as long as a server lives."""
        return int(_BEATS.unpack_from(self._memory)[0])

    def show(self, root: Digest) -> None:
        """A server is about to open a revision."""
        _SHOWN.pack_into(self._memory, _BEATS.size, time.monotonic(), root.text.encode())

    @property
    def shown(self) -> Shown | None:
        """What the server shows, if anything. It may be garbled while the server is writing."""
        since, root = _SHOWN.unpack_from(self._memory, _BEATS.size)
        text = root.rstrip(b"\0").decode("ascii", "replace")
        return Shown(text, since) if text else None

    def clear(self) -> None:
        """The next server has not shown anything yet."""
        _SHOWN.pack_into(self._memory, _BEATS.size, 0.0, b"")
