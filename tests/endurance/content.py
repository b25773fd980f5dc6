"""Content that everybody can tell from a file's name, ``SEED-SIZE``, in whole and in part."""

import hashlib
from functools import lru_cache

__all__ = ["content", "name_of", "part_of"]

_BLOCK = 4096


def name_of(seed: str, size: int) -> str:
    return f"{seed}-{size}"


def content(name: str) -> bytes:
    return part_of(name, 0, int(name.rpartition("-")[2]))


def part_of(name: str, offset: int, size: int) -> bytes:
    """The bytes of a file from ``offset`` on, fewer than ``size`` only at its end."""
    end = min(offset + size, int(name.rpartition("-")[2]))
    first, last = offset // _BLOCK, -(-end // _BLOCK)
    blocks = b"".join(_block(name, number) for number in range(first, last))
    return blocks[offset - first * _BLOCK : end - first * _BLOCK]


@lru_cache(1 << 13)
def _block(name: str, number: int) -> bytes:
    """It differs from all others, and packs well."""
    return hashlib.blake2b(f"{name}/{number}".encode()).digest() * (_BLOCK // 64)
