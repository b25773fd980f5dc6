"""Where big files are cut into chunks (CernVM-FS format reference, section 5).

Owns: the exact cut positions of the stock publisher, without which nothing deduplicates against what it
published. Must not know: what happens to a chunk.

The detector mixes each byte into 32 bits, ``x = x << 1 ^ byte``, so ``x`` depends on the last 32 bytes
only, and is a sum (XOR) of shifted bytes. Let ``f`` at a position be the highest byte of ``x`` there; the
next lower byte of ``x`` is then ``f`` eight positions on, since it is the same sum over bytes eight younger.
So ``f`` is all that is computed, for thousands of positions at once: the bytes as one big integer, doubled
in three steps – shift by 1, 2, 4 bytes and as many bits, and add – to the left and to the right. At a cut
the upper bits of ``x`` are 0111… or 1000…: where ``f`` and ``f`` eight on differ by 0x80, and that and ``f``
sixteen on by nothing that counts, is a candidate, which is then computed in full.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["ChunkDetector", "ChunkSizes"]

_WINDOW = 32
_BLOCK = 16 * 1024
_MIDDLE = 0x7FFFFFFF
_WORD = 0xFFFFFFFF
_BITS = 8
_NEAR = 0xFFFF
"""The greatest threshold at which the upper 16 bits of a value say whether it can be a cut."""


def _masks(pattern: int) -> int:
    return int.from_bytes(bytes((pattern,)) * (_BLOCK + _WINDOW), "little")


_LEFT = [(step, _masks(0xFF << step & 0xFF)) for step in (1, 2, 4)]
_RIGHT = [(step, _masks(0xFF >> step)) for step in (1, 2, 4)]


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
        self._search = _candidates_for(sizes.threshold) if sizes.threshold <= _NEAR else _everywhere
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
        for at in self._search(piece, skip):
            mixed = 0
            for byte in piece[max(0, at - _WINDOW + 1) : at + 1]:
                mixed = mixed << 1 ^ byte
            if abs((mixed & _WORD) - _MIDDLE) < self._sizes.threshold:
                return at
        return None


def _everywhere(piece: bytes, skip: int) -> Iterator[int]:
    yield from range(skip, len(piece))


def _candidates_for(threshold: int) -> Callable[[bytes, int], Iterator[int]]:
    """Finds positions in a piece, from one on, at which the mixed value may be nearer than ``threshold``."""
    # Below this bit values so near may be anything; the third byte of a value is bits 8 to 15.
    free = max(0, threshold.bit_length() - 8)
    third = re.escape(bytes(range(1 << free)))
    pattern = re.compile(rb"\x80(?=.{7}[" + third + rb"])", re.DOTALL)

    def candidates(piece: bytes, skip: int) -> Iterator[int]:
        whole = int.from_bytes(piece, "little")
        older = younger = whole
        for step, mask in _LEFT:
            older ^= older << step * (_BITS + 1) & mask
        for step, mask in _RIGHT:
            younger ^= younger >> step * (_BITS + 1) & mask
        # The byte in the middle is in both sums. What stands at a position is f 24 positions on.
        sums = older ^ younger ^ whole
        differ = (sums ^ sums >> 8 * _BITS).to_bytes(len(piece) + 2 * _BITS, "little")
        end = len(piece) - 24
        for found in pattern.finditer(differ, max(0, skip - 24), max(0, end + 8)):
            yield found.start() + 24

    return candidates
