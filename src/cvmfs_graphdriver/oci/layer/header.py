"""The 512-byte header of a tar member (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual,
"Basic Tar Format").

Owns: the fields and their numbers, octal or binary. Must not know: what follows a header.
"""

import struct
from functools import lru_cache
from typing import Final, NamedTuple
from zlib import adler32

from cvmfs_graphdriver.oci.errors import LayerFormatError

__all__ = ["BLOCK", "Header", "kind_of", "parse_header", "parse_number", "parse_size"]

BLOCK: Final = 512

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_POSIX: Final = b"ustar\x0000"
_HALF: Final = BLOCK // 2
_BLANK_CHECKSUM: Final = b" " * 8
_SIZE, _CHECKSUM, _KIND = slice(124, 136), slice(148, 156), slice(156, 157)


class Header(NamedTuple):
    """A header before extended headers are applied; names end at their first NUL."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    linkname: bytes
    major: int
    minor: int


def parse_number(field: bytes) -> int:
    """Parse a number: octal digits, or binary with the highest bit set, as GNU and star write large ones.

    Raises LayerFormatError: it is neither.
    """
    if field[0] & 0x80:
        # The bit that marks this form is not part of the number; the next one is its sign.
        number = int.from_bytes(field, "big") & (1 << 8 * len(field) - 1) - 1
        return number - (1 << 8 * len(field) - 1) if field[0] & 0x40 else number
    digits = field.strip(b" \0")
    try:
        if digits and not digits.isdigit():
            raise ValueError  # int() would accept signs, underscores and more
        return int(digits or b"0", 8)
    except ValueError:
        raise LayerFormatError(f"it is damaged: {field!r} in a tar header is not a number") from None


_parse_known = lru_cache(8192)(parse_number)
"""``parse_number`` with a cache, since most fields of an archive repeat."""


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _verify(block: bytes, checksum: bytes) -> None:
    """Verify the sum of all bytes, with the checksum's own field taken as blanks.

    Half a block sums up to less than Adler's modulus, so the lower half of its Adler-32 is that sum, computed
    in C.
    """
    said = parse_number(checksum)
    blank = block[:148] + _BLANK_CHECKSUM + block[156:]
    if (adler32(blank[:_HALF]) & 0xFFFF) + (adler32(blank[_HALF:]) & 0xFFFF) - 2 == said:
        return
    # Some old writers summed signed bytes.
    if sum(blank) - 256 * sum(byte > 127 for byte in blank) != said:
        raise LayerFormatError("it is damaged: the checksum of a tar header is wrong")


def kind_of(block: bytes) -> bytes:
    """The kind of member that a header announces: one letter, or NUL."""
    return block[_KIND]


def parse_size(block: bytes) -> int:
    """Only the size, of a header that extends the next one. Raises like ``parse_header``."""
    _verify(block, block[_CHECKSUM])
    return parse_number(block[_SIZE])


def parse_header(block: bytes) -> Header:
    """Parse a header that is not all zeros.

    Raises LayerFormatError: the checksum is wrong, or a number is malformed.
    """
    (name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, _, _, major, minor, prefix) = (
        _FIELDS.unpack(block)
    )
    _verify(block, checksum)
    name = _cut(name)
    if magic == _POSIX and prefix[0]:
        name = _cut(prefix) + b"/" + name
    is_device = kind == b"3" or kind == b"4"  # noqa: PLR1714  the fastest form
    return Header(
        name,
        _parse_known(mode),
        _parse_known(uid),
        _parse_known(gid),
        _parse_known(size),
        _parse_known(mtime),
        kind,
        _cut(linkname),
        parse_number(major) if is_device else 0,
        parse_number(minor) if is_device else 0,
    )
