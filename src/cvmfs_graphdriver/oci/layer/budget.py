"""What one layer may cost its reader: bytes, entries and time.

Owns: the limits and how they are counted. Must not know: what an entry becomes.

Bytes are counted twice, each against the same limit: those of the tar stream, and those of the files in it,
whose holes take no place in the stream.
"""

import time
from collections.abc import Callable

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.entry import LayerEntry
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["BudgetReader", "LayerBudget"]


class LayerBudget:
    """The budget of one layer, which begins when it is created."""

    def __init__(
        self, *, size: int, entries: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = size, entries, seconds
        self._clock = clock
        self._end = clock() + seconds
        self._stream = 0
        self._content = 0
        self._entries = 0

    def spend(self, size: int) -> None:
        """Count bytes of the tar stream. Raises LayerFormatError: that is too much, or takes too long."""
        self._stream += size
        self._check()

    def enter(self, entry: LayerEntry) -> None:
        """Count an entry before it is read. Raises LayerFormatError: that is too much."""
        self._entries += 1
        self._content += entry.size
        self._check()

    def _check(self) -> None:
        size, entries, seconds = self._limits
        if max(self._stream, self._content) > size:
            raise LayerFormatError(f"it unpacks to more than {size} bytes")
        if self._entries > entries:
            raise LayerFormatError(f"it has more than {entries} entries")
        if self._clock() > self._end:
            raise LayerFormatError(f"reading it takes more than {seconds:g} seconds")


class BudgetReader:
    """A layer's tar stream, paid from a budget."""

    def __init__(self, source: ByteSource, budget: LayerBudget) -> None:
        self._source = source
        self._budget = budget

    def read(self, size: int, /) -> bytes:
        """The next bytes; raises LayerFormatError: the budget is exceeded."""
        data = self._source.read(size)
        self._budget.spend(len(data))
        return data
