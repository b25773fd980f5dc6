"""Directories of several layers as overlayfs merges them, looked at without mounting anything.

Owns: overlayfs' rules of what is visible (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"). Must not know: whose layers they are, nor what is done with what is found.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.overlay import OPAQUE_VALUE, OPAQUE_XATTR, is_whiteout
from cvmfs_graphdriver.layers.directories import Directories, Part

__all__ = ["Merged", "MergedEntry", "is_opaque"]


_GONE = (FileNotFoundError, NotADirectoryError, PathEscapeError)
"""What becomes of a directory while somebody works in it: it is removed, or something else is put there."""


@dataclass(frozen=True, slots=True)
class MergedEntry:
    """Something visible: where it really lies, its status, and for a directory all that is merged in it."""

    place: Part
    status: os.stat_result
    below: "Merged"


class Merged:
    """A directory as a list of directories of layers, the topmost first; bytes are layers' roots."""

    def __init__(self, parts: Iterable[Part | bytes] = ()) -> None:
        self.parts = tuple(Part(part) if isinstance(part, bytes) else part for part in parts)

    def child(self, name: bytes, opened: Directories) -> MergedEntry | None:
        """What is visible under this name."""
        found: list[Part] = []
        top: os.stat_result | None = None
        for part in self.parts:
            place = part.below(name)
            try:
                directory = opened.open(part)
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except _GONE:
                continue
            if is_whiteout(status.st_mode, status.st_rdev):
                break
            if not stat.S_ISDIR(status.st_mode):
                if top is None:
                    return MergedEntry(place, status, Merged())
                break  # a file below a directory is hidden, with all below it
            top = top or status
            found.append(place)
            if is_opaque(b"/proc/self/fd/%d/%b" % (directory, name)):
                break
        return None if top is None else MergedEntry(found[0], top, Merged(found))

    def names(self, opened: Directories) -> set[bytes]:
        """Every name that one of the directories has, also if it is not visible."""
        found: set[bytes] = set()
        for part in self.parts:
            with suppress(*_GONE):
                found.update(map(os.fsencode, os.listdir(opened.open(part))))
        return found

    def beyond(self, other: "Merged") -> "Merged":
        """The part above what both have in common at the bottom."""
        shared = 0
        for mine, theirs in zip(reversed(self.parts), reversed(other.parts), strict=False):
            if mine != theirs:
                break
            shared += 1
        return Merged(self.parts[: len(self.parts) - shared])


def is_opaque(path: bytes) -> bool:
    """Whether a directory of a layer hides what the layers below have in it."""
    try:
        return os.getxattr(path, OPAQUE_XATTR) == OPAQUE_VALUE
    except OSError:
        return False
