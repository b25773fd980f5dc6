"""Opening directories of layers, safely even if a container changes the layer at the same time.

Owns: opening them below the layer's root, following no link, at any depth, and a cache of the most recently
used ones. Must not know: what they are opened for.
"""

import os
from collections import OrderedDict
from typing import NamedTuple, Self

from cvmfs_graphdriver.kernel.openat2 import open_beneath

__all__ = ["Directories", "Part"]

_KEPT = 64


class Part(NamedTuple):
    """A directory of a layer: the layer's root, and the path below it."""

    root: bytes
    path: bytes = b""

    def below(self, name: bytes) -> "Part":
        """A subdirectory."""
        return Part(self.root, self.path + b"/" + name if self.path else name)


class Directories:
    """Open directories; for use in a ``with`` statement and in one thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[Part, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def open(self, part: Part) -> int:
        """A descriptor that remains valid until a few other directories have been opened.

        Raises OSError: the directory does not exist (any more), or is not a directory.
        """
        known = self._open.get(part)
        if known is not None:
            self._open.move_to_end(part)
            return known
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if part.path:
            where, _, name = part.path.rpartition(b"/")
            above = self._open.get(Part(part.root, where))  # saves walking a deep tree from its root
            if above is not None:
                descriptor = open_beneath(above, name, flags)
            else:
                descriptor = open_beneath(self.open(Part(part.root)), part.path, flags)
        else:
            descriptor = os.open(part.root, flags)
        self._open[part] = descriptor
        if len(self._open) > _KEPT:
            os.close(self._open.popitem(last=False)[1])
        return descriptor
