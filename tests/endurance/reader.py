"""A program that reads a tree at random, and says what it saw: ``reader ROOT SECONDS SEED MANNER``.

MANNER is ``honest``: files are named as in ``content``, and everything else is wrong; ``moving``: the same,
and what is in the directory ``moving`` comes and goes; or ``hostile``: nothing is known of the tree.
"""

import errno
import json
import mmap
import os
import random
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.endurance.content import part_of

_SLICE = 1 << 18
_MAPPED = 1 << 16
_SHOWN = 20


class Reader:
    """What is done, how often, and what came of it."""

    def __init__(self, root: str, seed: int, manner: str) -> None:
        self._root, self._manner = root, manner
        self._random = random.Random(seed)
        self._files: list[str] = []
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest: tuple[float, str] = (0.0, "")

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        doings: list[Callable[[str], None]] = [self._read, self._map, self._stat, self._open, self._slice]
        while time.monotonic() < deadline:
            if not self._files or not self._random.randrange(200):
                self._do(self._list, self._root)
            if self._files:
                self._do(self._random.choice(doings), self._random.choice(self._files))

    def _do(self, doing: Callable[[str], None], path: str) -> None:
        began = time.monotonic()
        name = doing.__name__.strip("_")
        self.counts[name] += 1
        try:
            doing(path)
        except OSError as error:
            comes_and_goes = "/moving" in path and error.errno in {errno.ENOENT, errno.ESTALE}
            if not comes_and_goes:
                self.errors[f"{name} {errno.errorcode[error.errno or 0]}"] += 1
                if self._manner != "hostile" and len(self.wrong) < _SHOWN:
                    self.wrong.append(f"{name} {path}: {error.strerror}")
            if path in self._files:
                self._files.remove(path)
        took = time.monotonic() - began
        if took > self.slowest[0]:
            self.slowest = took, f"{name} {path}"

    def _check(self, path: str, offset: int, data: bytes, size: int) -> None:
        if self._manner == "hostile":
            return
        if data != part_of(os.path.basename(path), offset, size) and len(self.wrong) < _SHOWN:
            self.wrong.append(f"{path} from {offset} on: {len(data)} bytes, {data[:16]!r}…")

    def _list(self, root: str) -> None:
        self._files = []
        for directory, _, names in os.walk(root):
            self._files += [os.path.join(directory, name) for name in names]
            if len(self._files) > 5000:
                break
        if self._manner == "hostile":
            os.statvfs(root)
        elif not self._files:
            self.wrong.append(f"{root} is empty")

    def _read(self, path: str) -> None:
        with open(path, "rb") as file:
            offset = 0
            while (data := file.read(_SLICE)) or not offset:
                self._check(path, offset, data, _SLICE)
                offset += len(data)
                if not data or (self._manner == "hostile" and offset > 64 * _SLICE):
                    break

    def _slice(self, path: str) -> None:
        with open(path, "rb") as file:
            offset = self._random.randrange(os.fstat(file.fileno()).st_size + 1)
            self._check(path, offset, os.pread(file.fileno(), _SLICE, offset), _SLICE)

    def _map(self, path: str) -> None:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size or self._manner == "hostile":  # a page that cannot be read is a SIGBUS
                return
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
                for _ in range(4):
                    offset = self._random.randrange(size)
                    self._check(path, offset, mapped[offset : offset + _MAPPED], _MAPPED)

    def _stat(self, path: str) -> None:
        found = os.lstat(path)
        if self._manner != "hostile" and found.st_size != int(path.rpartition("-")[2]):
            self.wrong.append(f"{path} has {found.st_size} bytes")
        elif stat.S_ISLNK(found.st_mode):
            os.readlink(path)

    def _open(self, path: str) -> None:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def main() -> None:
    root, seconds, seed, manner = sys.argv[1:]
    reader = Reader(root, int(seed), manner)
    reader.run(float(seconds))
    found = {
        "counts": reader.counts,
        "errors": reader.errors,
        "wrong": reader.wrong,
        "slowest": reader.slowest,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
