"""Hostile input, cheaply and always the same: what is good, damaged in all the ways that parsers fear."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.support.fuzzing import REFUSED, fuzz

__all__ = ["COSTLY_INPUTS", "INPUTS", "SEED", "generated", "mutations", "survives"]

INPUTS = int(os.environ.get("FUZZ_INPUTS", "5000"))
"""Inputs of each fuzz test; ``make fuzz`` sets 100 000."""
COSTLY_INPUTS = int(os.environ.get("FUZZ_INPUTS", "500"))
"""Inputs of those for which something is published, mounted or started; ``make fuzz`` makes no difference."""
SEED = int(os.environ.get("FUZZ_SEED", "20261123"))
"""The inputs are always the same, unless this changes."""
_Test = TypeVar("_Test", bound=Callable[..., None])
_PIECES = [
    b"\n",
    b"\0",
    b"--\n",
    b"\xff",
    b"-1",
    b"18446744073709551616",
    b"9" * 50,
    b"\xc3",
    b"=",
    b" ",
    b"%",
]


def mutations(good: Sequence[bytes], count: int = INPUTS) -> Iterator[bytes]:
    """``count`` inputs: bits flipped, cut, doubled, mixed, or noise."""
    chance = random.Random(SEED)
    for _ in range(count):
        data = bytearray(chance.choice(good))
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(8):
                case 0:
                    del data[at:]
                case 1:
                    del data[at : at + chance.randrange(1, 9)]
                case 2:
                    data[at:at] = chance.choice(_PIECES)
                case 3:
                    data[at:at] = data[at : at + chance.randrange(1, 60)]
                case 4:
                    other = chance.choice(good)
                    data[at:] = other[chance.randrange(len(other) + 1) :]
                case 5:
                    data = bytearray(chance.randbytes(chance.randrange(40)))
                case _:
                    if at < len(data):
                        data[at] ^= 1 << chance.randrange(8)
        yield bytes(data)


def survives(parse: Callable[[bytes], object], good: Sequence[bytes], count: int = INPUTS) -> float:
    """Parse bad inputs; nothing but our own errors may come out. Returns the share that was refused."""

    def use(data: bytes) -> None:
        parse(data)

    return fuzz(use, mutations(good, count))[REFUSED] / count


def generated(test: _Test) -> _Test:
    """Fuzz a test by what hypothesis generates: a tenth of the inputs, since each takes ten times as long."""
    marked: _Test = pytest.mark.fuzz(settings(max_examples=max(1, INPUTS // 10), deadline=None)(test))
    return marked
