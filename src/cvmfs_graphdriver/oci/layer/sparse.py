"""Files with holes in tar archives: GNU's old format and its PAX formats 0.0, 0.1 and 1.0.

Owns: the maps (GNU tar manual, appendix "Storing Sparse Files"), and the file they describe with its holes
filled by zeros. Must not know: headers that have nothing to do with holes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.header import BLOCK, parse_number
from cvmfs_graphdriver.oci.layer.pax import Records
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["Piece", "SparseReader", "check_map", "map_in_data", "map_in_header", "map_in_records"]

_MAX_PIECES: Final = 1 << 18
_ZEROS: Final = bytes(1 << 20)
_OLD_PIECES: Final = 4
_OLD_PIECES_EXTENSION: Final = 21
_OLD_PIECE_SIZE: Final = 24


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that are not a hole: where they stand in the file and how many they are."""

    offset: int
    size: int


def check_map(name: str, pieces: Sequence[Piece], size: int, stored: int) -> None:
    """Check that the pieces follow each other inside a file of ``size`` bytes and need all ``stored`` ones.

    Raises LayerFormatError: they do not.
    """
    end = 0
    for piece in pieces:
        if piece.offset < end or piece.size < 0:
            raise LayerFormatError(f"{name}: its map of holes is not in order")
        end = piece.offset + piece.size
    if end > size or sum(piece.size for piece in pieces) != stored:
        raise LayerFormatError(f"{name}: its map of holes does not fit its size")


def _natural(name: str, text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise LayerFormatError(f"{name}: its map of holes is damaged")
    return int(text)


def _pieces(name: str, numbers: Sequence[int]) -> list[Piece]:
    """Pieces from alternating offsets and sizes; GNU tar ends a map by an empty piece."""
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_PIECES:
        raise LayerFormatError(f"{name}: its map of holes is damaged, or has more than {_MAX_PIECES} pieces")
    return [Piece(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def map_in_records(name: str, records: Records) -> list[Piece] | None:
    """The map of the PAX formats 0.0 and 0.1, None if the records have none."""
    if b"GNU.sparse.map" in records:
        text = records[b"GNU.sparse.map"]
        return _pieces(name, [_natural(name, number) for number in text.split(b",")] if text else [])
    if b"GNU.sparse.numblocks" not in records:
        return None
    offsets = records.get(b"GNU.sparse.offset", b"").split(b",")
    sizes = records.get(b"GNU.sparse.numbytes", b"").split(b",")
    if len(offsets) != len(sizes):
        raise LayerFormatError(f"{name}: its map of holes is damaged")
    pairs = zip(offsets, sizes, strict=True)
    return _pieces(name, [_natural(name, number) for pair in pairs for number in pair if number])


def map_in_data(name: str, exactly: Callable[[int], bytes]) -> tuple[list[Piece], int]:
    """The map of PAX format 1.0, which stands before the data: the pieces and the bytes it takes.

    ``exactly`` reads so many of the member's stored bytes.
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
    if count > _MAX_PIECES:
        raise LayerFormatError(f"{name}: its map has more than {_MAX_PIECES} pieces")
    return _pieces(name, [_natural(name, line()) for _ in range(2 * count)]), taken


def map_in_header(name: str, block: bytes, exactly: Callable[[int], bytes]) -> tuple[list[Piece], int]:
    """The map of GNU's old format, in a header's ``block`` and those after it: pieces and the file's size.

    ``exactly`` reads so many bytes of the archive.
    """

    def numbers(fields: bytes) -> list[int]:
        found: list[int] = []
        for start in range(0, len(fields), _OLD_PIECE_SIZE):
            offset, size = fields[start : start + 12], fields[start + 12 : start + 24]
            if not size[0]:
                break
            found += (parse_number(offset), parse_number(size))
        return found

    found = numbers(block[386 : 386 + _OLD_PIECES * _OLD_PIECE_SIZE])
    size = parse_number(block[483:495])
    extended = block[482]
    while extended:
        block = exactly(BLOCK)
        if len(found) > 2 * _MAX_PIECES:
            raise LayerFormatError(f"{name}: its map of holes is damaged")
        found += numbers(block[: _OLD_PIECES_EXTENSION * _OLD_PIECE_SIZE])
        extended = block[504]
    return _pieces(name, found), size


class SparseReader:
    """A file with its holes filled: reads the pieces from ``content``, makes zeros between."""

    def __init__(self, content: ByteSource, pieces: Sequence[Piece], size: int) -> None:
        self._content = content
        self._pieces = iter([*pieces, Piece(size, 0)])
        self._piece = next(self._pieces)
        self._position = 0
        self._size = size

    def read(self, size: int, /) -> bytes:
        while self._position < self._size and self._position == self._piece.offset + self._piece.size:
            self._piece = next(self._pieces)
        if self._position >= self._size:
            return b""
        if self._position < self._piece.offset:
            data = _ZEROS[: min(size, self._piece.offset - self._position)]
        else:
            data = self._content.read(min(size, self._piece.offset + self._piece.size - self._position))
        self._position += len(data)
        return data
