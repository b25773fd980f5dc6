"""Where big files are cut into chunks (CernVM-FS format reference, section 5).

Owns: the exact cut positions of the stock publisher, without which nothing deduplicates against what it
published. Must not know: what happens to a chunk.

The detector mixes each byte into 32 bits, ``x = x << 1 ^ byte``, so ``x`` depends on the last 32 bytes
only, and is a sum (XOR) of shifted bytes. So it is computed for thousands of positions at once: with every
byte in a 32-bit lane of one big integer, five doubling steps – shift by 1, 2, 4, 8, 16 lanes and as many
bits, and add – give ``x`` at every position. Candidates are then found by a search in bytes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["ChunkDetector", "ChunkSizes"]

_WINDOW = 32
_BLOCK = 16 * 1024
_MIDDLE = 0x7FFFFFFF
_LANE = 4
_MASKS = [
    (
        step,
        int.from_bytes(
            (0xFFFFFFFF << step & 0xFFFFFFFF).to_bytes(_LANE, "little") * (_BLOCK + _WINDOW), "little"
        ),
    )
    for step in (1, 2, 4, 8, 16)
]
_NEAR = re.compile(rb"\xff\x7f|\x00\x80")  # the upper half of every value less than 65536 from the middle
_ANY = re.compile(rb".", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Least, average and greatest size of a chunk, in bytes."""

    minimum: int = 4 * 1024 * 1024
    average: int = 8 * 1024 * 1024
    maximum: int = 16 * 1024 * 1024

    @property
    def threshold(self) -> int:
        """How near to the middle of its range the mixed value must be at a cut."""
        return 0xFFFFFFFF // self.average


class ChunkDetector:
    """Finds the cuts of one file, fed with its bytes from the first to the last."""

    def __init__(self, sizes: ChunkSizes) -> None:
        self._sizes = sizes
        self._candidate = _NEAR if sizes.threshold <= 0xFFFF else _ANY
        self._offset = 0
        self._cut = 0
        self._tail = b""

    def feed(self, data: bytes | memoryview) -> Iterator[int]:
        """Offsets in the file at which a chunk ends and the next begins, as far as ``data`` shows them."""
        begin = self._offset
        end = begin + len(data)
        buffer = self._tail + bytes(data)
        base = begin - len(self._tail)
        while True:
            cut = self._find(buffer, base, begin, end)
            if cut is None:
                break
            self._cut = cut
            begin = cut
            yield cut
        self._offset = end
        self._tail = buffer[-_WINDOW:]

    def _find(self, buffer: bytes, base: int, begin: int, end: int) -> int | None:
        """The first cut in [begin, end), if there is one."""
        limit = self._cut + self._sizes.maximum
        first = max(begin, self._cut + self._sizes.minimum)
        for start in range(first, min(end, limit), _BLOCK):
            stop = min(start + _BLOCK, end, limit)
            window = max(start - _WINDOW + 1, self._cut + self._sizes.minimum - _WINDOW)
            found = self._scan(buffer[window - base : stop - base], start - window)
            if found is not None:
                return window + found
        return limit if limit < end else None

    def _scan(self, piece: bytes, skip: int) -> int | None:
        """The first position from ``skip`` on in a short piece where the mixed value says "cut"."""
        lanes = bytearray(len(piece) * _LANE)
        lanes[::_LANE] = piece
        mixed = int.from_bytes(lanes, "little")
        for step, mask in _MASKS:
            mixed ^= mixed << step * (8 * _LANE + 1) & mask
        length = len(lanes)
        values = (mixed & (1 << 8 * length) - 1).to_bytes(length, "little")
        threshold = self._sizes.threshold
        at = skip * _LANE
        while (match := self._candidate.search(values, at)) is not None:
            at = match.start() + 1
            lane, place = divmod(match.start(), _LANE)
            if place != 2 or lane < skip:
                continue
            value = int.from_bytes(values[lane * _LANE : (lane + 1) * _LANE], "little")
            if abs(value - _MIDDLE) < threshold:
                return lane
        return None
