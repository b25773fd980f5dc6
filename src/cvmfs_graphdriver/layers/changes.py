"""The changes a layer makes to the layers below it, as Docker reports them.

Owns: what counts as a change. The rules are those of Docker's comparison of two mounted trees, which
``overlay2`` also uses: content is not read, times of directories are ignored, and a directory in which
something has changed is reported itself. Only layers that the two trees do not share are examined. Must not
know: how layers are mounted.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.layers.directories import Directories, Part
from cvmfs_graphdriver.layers.merged import Merged, MergedEntry

__all__ = ["Change", "ChangeKind", "changes", "size_of"]

_CAPABILITY = "security.capability"
_SECOND = 1_000_000_000


class ChangeKind(IntEnum):
    """Kinds of changes with their numbers in Docker's API."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One path, absolute inside the image."""

    path: bytes
    kind: ChangeKind


def changes(new: Merged, old: Merged) -> list[Change]:
    """The changes from ``old`` to ``new``, a directory before its contents. Raises OSError."""
    with Directories() as opened:
        return _Comparison(opened).run(new, old)


@dataclass(slots=True)
class _Frame:
    """A directory in progress: the names still to be compared, and whether anything in it differs.

    ``at`` is its own position among the changes found.
    """

    path: bytes
    new: Merged
    old: Merged
    names: list[bytes]
    at: int = -1
    kind: ChangeKind | None = None
    changed: bool = False


class _Comparison:
    """One comparison. It is not recursive: directories may be nested deeper than Python's stack allows."""

    def __init__(self, opened: Directories) -> None:
        self._opened = opened
        self._found: list[Change | None] = []

    def run(self, new: Merged, old: Merged) -> list[Change]:
        frames = [self._frame(b"", new, old)]
        while frames:
            frame = frames[-1]
            if frame.names:
                below = self._compare(frame, frame.names.pop())
                if below is not None:
                    frames.append(below)
                continue
            frames.pop()
            if frame.kind is None and frame.changed:
                frame.kind = ChangeKind.MODIFIED
            if frame.kind is not None and frames:
                self._found[frame.at] = Change(frame.path, frame.kind)
                frames[-1].changed = True
        return [change for change in self._found if change is not None]

    def _frame(self, path: bytes, new: Merged, old: Merged) -> _Frame:
        names = new.beyond(old).names(self._opened) | old.beyond(new).names(self._opened)
        return _Frame(path, new, old, sorted(names, reverse=True))

    def _compare(self, frame: _Frame, name: bytes) -> _Frame | None:
        """Compare one name; returns a directory that is to be compared before the next name."""
        now, before = frame.new.child(name, self._opened), frame.old.child(name, self._opened)
        path = frame.path + b"/" + name
        kind = None
        if now is None:
            kind = None if before is None else ChangeKind.DELETED
        elif before is None:
            kind = ChangeKind.ADDED
        elif self._differ(now, before):
            kind = ChangeKind.MODIFIED
        if now is not None and stat.S_ISDIR(now.status.st_mode):
            below = self._frame(path, now.below, before.below if before is not None else Merged())
            below.at, below.kind = len(self._found), kind
            self._found.append(None)
            return below
        if kind is not None:
            self._found.append(Change(path, kind))
            frame.changed = True
        return None

    def _differ(self, now: MergedEntry, before: MergedEntry) -> bool:
        return _differ(now, before) or self._capability(now) != self._capability(before)

    def _capability(self, entry: MergedEntry) -> bytes | None:
        where, _, name = entry.place.path.rpartition(b"/")
        try:
            directory = self._opened.open(Part(entry.place.root, where))
            return os.getxattr(b"/proc/self/fd/%d/%b" % (directory, name), _CAPABILITY, follow_symlinks=False)
        except (OSError, PathEscapeError):
            return None


def _differ(now: MergedEntry, before: MergedEntry) -> bool:
    new, old = now.status, before.status
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (
        old.st_mode,
        old.st_uid,
        old.st_gid,
        old.st_rdev,
    ):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return new.st_size != old.st_size or not _same_time(new.st_mtime_ns, old.st_mtime_ns)


def _same_time(one: int, other: int) -> bool:
    """Compare times; if either is in whole seconds, as from an archive, only the seconds count."""
    if one // _SECOND != other // _SECOND:
        return False
    return one == other or not one % _SECOND or not other % _SECOND


def _entries(directory: int) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)


def size_of(diff: Path) -> int:
    """The number of bytes in a layer's own files; hard links are counted once."""
    seen = set()
    total = 0
    pending = [Part(os.fsencode(diff))]
    with Directories() as opened:
        while pending:
            here = pending.pop()
            # A running container may remove files meanwhile.
            with suppress(FileNotFoundError, NotADirectoryError, PathEscapeError):
                for entry in _entries(opened.open(here)):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(here.below(os.fsencode(entry.name)))
                        continue
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_ino not in seen:
                            total += status.st_size
                            if status.st_nlink > 1:
                                seen.add(status.st_ino)
    return total
