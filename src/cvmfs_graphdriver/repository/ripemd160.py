"""RIPEMD-160, from OpenSSL where it has it and in Python where it has not.

Owns: the digest. OpenSSL 3 keeps RIPEMD-160 in its "legacy" provider, which many hosts do not load, and a
repository may well be named by it. Follows Dobbertin, Bosselaers, Preneel, "RIPEMD-160: a strengthened
version of RIPEMD" (1996). Must not know: what is hashed.
"""

import hashlib
import struct
from typing import Protocol

__all__ = ["PureRipemd160", "new_ripemd160"]

_MASK = 0xFFFFFFFF
_RHO = (7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8)


def _words() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which message word each of the 80 steps takes, on the left and on the right line."""
    left = list(range(16))
    right = [(9 * i + 5) % 16 for i in range(16)]
    lefts, rights = [*left], [*right]
    for _ in range(4):
        left = [_RHO[i] for i in left]
        right = [_RHO[i] for i in right]
        lefts += left
        rights += right
    return tuple(lefts), tuple(rights)


_SHIFTS = (  # by round, then by message word
    (11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
    (12, 13, 11, 15, 6, 9, 9, 7, 12, 15, 11, 13, 7, 8, 7, 7),
    (13, 15, 14, 11, 7, 7, 6, 8, 13, 14, 13, 12, 5, 5, 6, 9),
    (14, 11, 12, 14, 8, 6, 5, 5, 15, 12, 15, 14, 9, 9, 8, 6),
    (15, 12, 13, 13, 9, 5, 8, 6, 14, 11, 12, 11, 8, 6, 5, 5),
)
_LEFT_CONSTANTS = (0, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_RIGHT_CONSTANTS = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0)
_LEFT_WORDS, _RIGHT_WORDS = _words()


def _mix(function: int, x: int, y: int, z: int) -> int:
    """The five boolean functions, by number."""
    if function == 0:
        return x ^ y ^ z
    if function == 1:
        return (x & y) | (~x & z)
    if function == 2:
        return (x | ~y) ^ z
    if function == 3:
        return (x & z) | (y & ~z)
    return x ^ (y | ~z)


def _line(
    state: tuple[int, ...],
    block: tuple[int, ...],
    words: tuple[int, ...],
    constants: tuple[int, ...],
    *,
    right: bool,
) -> tuple[int, int, int, int, int]:
    """Eighty steps of one of the two lines."""
    a, b, c, d, e = state
    for step in range(80):
        part = step >> 4
        word = words[step]
        total = a + _mix(4 - part if right else part, b, c, d) + block[word] + constants[part] & _MASK
        shift = _SHIFTS[part][word]
        a, b, c, d, e = (
            e,
            (total << shift | total >> 32 - shift) + e & _MASK,
            b,
            (c << 10 | c >> 22) & _MASK,
            d,
        )
    return a, b, c, d, e


class PureRipemd160:
    """A running RIPEMD-160 in Python: about a thousand times slower than OpenSSL's, and always there."""

    def __init__(self) -> None:
        self._state = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
        self._length = 0
        self._rest = b""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more bytes."""
        buffer = self._rest + bytes(data)
        self._length += len(buffer) - len(self._rest)
        whole = len(buffer) & ~63
        for at in range(0, whole, 64):
            self._state = self._compress(self._state, buffer[at : at + 64])
        self._rest = buffer[whole:]

    def digest(self) -> bytes:
        """The digest of all bytes so far, 20 of them."""
        padding = b"\x80" + bytes(-(len(self._rest) + 9) & 63) + struct.pack("<Q", 8 * self._length)
        buffer, state = self._rest + padding, self._state
        for at in range(0, len(buffer), 64):
            state = self._compress(state, buffer[at : at + 64])
        return struct.pack("<5I", *state)

    @staticmethod
    def _compress(state: tuple[int, ...], data: bytes) -> tuple[int, int, int, int, int]:
        block = struct.unpack("<16I", data)
        left = _line(state, block, _LEFT_WORDS, _LEFT_CONSTANTS, right=False)
        right = _line(state, block, _RIGHT_WORDS, _RIGHT_CONSTANTS, right=True)
        return (
            state[1] + left[2] + right[3] & _MASK,
            state[2] + left[3] + right[4] & _MASK,
            state[3] + left[4] + right[0] & _MASK,
            state[4] + left[0] + right[1] & _MASK,
            state[0] + left[1] + right[2] & _MASK,
        )


class _Hasher(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


def new_ripemd160() -> _Hasher:
    """A running RIPEMD-160."""
    try:
        return hashlib.new("ripemd160", usedforsecurity=False)
    except ValueError:
        return PureRipemd160()
