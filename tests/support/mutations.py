"""Hostile input, cheaply and always the same: what is good, damaged in all the ways that parsers fear."""

import os
import random
from collections.abc import Callable, Iterator, Sequence

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["FACTOR", "SEED", "mutations", "survives"]

# More than the default takes too long for every run: FUZZ=10 gives ten times as many.
FACTOR = float(os.environ.get("FUZZ", "1"))
# Always the same inputs, unless other ones are asked for.
SEED = int(os.environ.get("FUZZ_SEED", "20261123"))
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


def mutations(good: Sequence[bytes], count: int) -> Iterator[bytes]:
    """``count`` inputs (more if FUZZ says so): bits flipped, cut, doubled, mixed, or noise."""
    chance = random.Random(SEED)
    for _ in range(int(count * FACTOR)):
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


def survives(parse: Callable[[bytes], object], good: Sequence[bytes], count: int) -> int:
    """Parse that many bad inputs; nothing but our own errors may come out. Says how many were refused."""
    refused = 0
    for data in mutations(good, count):
        try:
            parse(data)
        except CvmfsGraphdriverError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} from {data!r}") from error
    return refused
