"""Files with holes in tar archives: GNU's old format and its PAX formats 0.0, 0.1 and 1.0.

Owns: the maps (GNU tar manual, appendix "Storing Sparse Files"), and the files they describe, holes filled
with zeros. Must not know: headers unrelated to holes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.header import BLOCK, parse_number
from cvmfs_graphdriver.oci.layer.pax import Records
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["DataSegment", "SparseReader", "check_map", "map_in_data", "map_in_header", "map_in_records"]

_MAX_SEGMENTS: Final = 1 << 18
_ZEROS: Final = bytes(1 << 20)
_OLD_SEGMENTS: Final = 4
_OLD_SEGMENTS_EXTENSION: Final = 21
_OLD_SEGMENT_SIZE: Final = 24


@dataclass(frozen=True, slots=True)
class DataSegment:
    """A range of a file that is not a hole."""

    offset: int
    size: int


def check_map(name: str, segments: Sequence[DataSegment], size: int, stored: int) -> None:
    """Check that the segments are ordered, fit in a file of ``size`` bytes and add up to ``stored`` bytes.

    Raises LayerFormatError: they do not.
    """
    end = 0
    for segment in segments:
        if segment.offset < end or segment.size < 0:
            raise LayerFormatError(f"{name}: its map of holes is not in order")
        end = segment.offset + segment.size
    if end > size or sum(segment.size for segment in segments) != stored:
        raise LayerFormatError(f"{name}: its map of holes does not fit its size")


def _natural(name: str, text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise LayerFormatError(f"{name}: its map of holes is damaged")
    return int(text)


def _segments(name: str, numbers: Sequence[int]) -> list[DataSegment]:
    """Segments from alternating offsets and sizes; GNU tar ends a map with an empty segment."""
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_SEGMENTS:
        raise LayerFormatError(
            f"{name}: its map of holes is damaged, or has more than {_MAX_SEGMENTS} segments"
        )
    return [DataSegment(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def map_in_records(name: str, records: Records) -> list[DataSegment] | None:
    """The map of PAX formats 0.0 and 0.1; None if the records have none."""
    if b"GNU.sparse.map" in records:
        text = records[b"GNU.sparse.map"]
        return _segments(name, [_natural(name, number) for number in text.split(b",")] if text else [])
    if b"GNU.sparse.numblocks" not in records:
        return None
    offsets = records.get(b"GNU.sparse.offset", b"").split(b",")
    sizes = records.get(b"GNU.sparse.numbytes", b"").split(b",")
    if len(offsets) != len(sizes):
        raise LayerFormatError(f"{name}: its map of holes is damaged")
    pairs = zip(offsets, sizes, strict=True)
    return _segments(name, [_natural(name, number) for pair in pairs for number in pair if number])


def map_in_data(name: str, exactly: Callable[[int], bytes]) -> tuple[list[DataSegment], int]:
    """The map of PAX format 1.0, which precedes the data: the segments, and the size of the map.

    ``exactly`` reads that many of the member's stored bytes.
    """
    taken = 0
    rest = b""

    def line() -> bytes:
        nonlocal taken, rest
        while b"\n" not in rest:
            if len(rest) > BLOCK:
                raise LayerFormatError(f"{name}: its map of holes is damaged")
            rest += exactly(BLOCK)
            taken += BLOCK
        first, _, rest = rest.partition(b"\n")
        return first

    count = _natural(name, line())
    if count > _MAX_SEGMENTS:
        raise LayerFormatError(f"{name}: its map has more than {_MAX_SEGMENTS} segments")
    return _segments(name, [_natural(name, line()) for _ in range(2 * count)]), taken


def map_in_header(name: str, block: bytes, exactly: Callable[[int], bytes]) -> tuple[list[DataSegment], int]:
    """The map of GNU's old format, in a header's ``block`` and those after it: segments, and the file's size.

    ``exactly`` reads that many bytes of the archive.
    """

    def numbers(fields: bytes) -> list[int]:
        found: list[int] = []
        for start in range(0, len(fields), _OLD_SEGMENT_SIZE):
            offset, size = fields[start : start + 12], fields[start + 12 : start + 24]
            if not size[0]:
                break
            found += (parse_number(offset), parse_number(size))
        return found

    found = numbers(block[386 : 386 + _OLD_SEGMENTS * _OLD_SEGMENT_SIZE])
    size = parse_number(block[483:495])
    extended = block[482]
    while extended:
        block = exactly(BLOCK)
        if len(found) > 2 * _MAX_SEGMENTS:
            raise LayerFormatError(f"{name}: its map of holes is damaged")
        found += numbers(block[: _OLD_SEGMENTS_EXTENSION * _OLD_SEGMENT_SIZE])
        extended = block[504]
    return _segments(name, found), size


class SparseReader:
    """A file with its holes filled: reads the segments from ``content``, with zeros in between."""

    def __init__(self, content: ByteSource, segments: Sequence[DataSegment], size: int) -> None:
        self._content = content
        self._segments = iter([*segments, DataSegment(size, 0)])
        self._segment = next(self._segments)
        self._position = 0
        self._size = size

    def read(self, size: int, /) -> bytes:
        while self._position < self._size and self._position == self._segment.offset + self._segment.size:
            self._segment = next(self._segments)
        if self._position >= self._size:
            return b""
        if self._position < self._segment.offset:
            data = _ZEROS[: min(size, self._segment.offset - self._position)]
        else:
            data = self._content.read(min(size, self._segment.offset + self._segment.size - self._position))
        self._position += len(data)
        return data
