"""Damaged SQLite files by the hundred thousand: one file in memory, changed in place and mended again.

Bytes are changed where a file has something, most of all in the heads of the file and of its pages: what
lies in unused space is never looked at.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mutations import INPUTS, SEED

__all__ = ["FAST", "damaged"]

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A directory in memory, if there is one."""
_ODD = (0, 1, 2, 5, 10, 13, 0x7F, 0x80, 0x81, 0xFF)


@contextmanager
def _file(content: bytes) -> Iterator[tuple[Path, int]]:
    with tempfile.TemporaryDirectory(dir=FAST) as directory:
        path = Path(directory) / "damaged"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield path, descriptor
        finally:
            os.close(descriptor)


def damaged(good: bytes, count: int = INPUTS) -> Iterator[Path]:
    """``count`` times the same path, each time of a file with other damage.

    What a user writes into it is undone as well.
    """
    chance = random.Random(SEED)
    size = int.from_bytes(good[16:18])
    used = [at for at, byte in enumerate(good) if byte]
    heads = [page + at for page in range(0, len(good), size) for at in range(40)] + list(range(100))
    with _file(good) as (path, descriptor):
        for _ in range(count):
            for _ in range(chance.choice((1, 1, 2, 4, 25))):
                at = chance.choice(heads if chance.random() < 0.3 else used)
                if chance.random() < 0.5:
                    byte = chance.choice(_ODD)
                else:
                    byte = good[at] ^ 1 << chance.randrange(8)
                os.pwrite(descriptor, bytes((byte,)), at)
            if chance.random() < 0.05:
                os.ftruncate(descriptor, chance.randrange(len(good)))
            yield path
            os.ftruncate(descriptor, len(good))
            os.pwrite(descriptor, good, 0)
