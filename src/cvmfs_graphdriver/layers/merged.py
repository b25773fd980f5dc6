"""Directories of several layers as overlayfs merges them, examined without mounting anything.

Owns: overlayfs' rules of visibility (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"). Must not know: which layers they are, nor what the result is used for.
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
"""Raised if a container removes or replaces a directory meanwhile."""


@dataclass(frozen=True, slots=True)
class MergedEntry:
    """A visible entry: its actual location, its status, and for a directory the directories merged in it."""

    place: Part
    status: os.stat_result
    below: "Merged"


class Merged:
    """A directory as a list of layers' directories, the topmost first; bytes are layers' roots."""

    def __init__(self, parts: Iterable[Part | bytes] = ()) -> None:
        self.parts = tuple(Part(part) if isinstance(part, bytes) else part for part in parts)

    def child(self, name: bytes, opened: Directories) -> MergedEntry | None:
        """The entry that is visible under this name, if any."""
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
                break  # a file below a directory is hidden, as is everything below it
            top = top or status
            found.append(place)
            if is_opaque(b"/proc/self/fd/%d/%b" % (directory, name), follow=False):
                break
        return None if top is None else MergedEntry(found[0], top, Merged(found))

    def names(self, opened: Directories) -> set[bytes]:
        """All names in the directories, visible or not."""
        found: set[bytes] = set()
        for part in self.parts:
            with suppress(*_GONE):
                found.update(map(os.fsencode, os.listdir(opened.open(part))))
        return found

    def beyond(self, other: "Merged") -> "Merged":
        """The directories above those that both have in common at the bottom."""
        shared = 0
        for mine, theirs in zip(reversed(self.parts), reversed(other.parts), strict=False):
            if mine != theirs:
                break
            shared += 1
        return Merged(self.parts[: len(self.parts) - shared])


def is_opaque(path: bytes, *, follow: bool) -> bool:
    """Whether a layer's directory hides the same directory of the layers below.

    ``follow`` is for an open descriptor's path in ``/proc``, which is a link.
    """
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=follow) == OPAQUE_VALUE
    except OSError:
        return False
