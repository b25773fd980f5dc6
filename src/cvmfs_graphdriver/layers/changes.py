"""What a layer changes, compared with the layers below it, as Docker reports it.

Owns: what counts as a change. The rules are those of Docker's own comparison of two mounted trees, which
``overlay2`` uses, too: content is not read, times of directories do not count, and a directory in which
something has changed is reported itself. Only what lies in layers that the two trees do not share is looked
at. Must not know: how layers are mounted.
"""

import os
import stat
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from cvmfs_graphdriver.layers.merged import Merged, MergedEntry

__all__ = ["Change", "ChangeKind", "changes", "size_of"]

_CAPABILITY = "security.capability"
_SECOND = 1_000_000_000


class ChangeKind(IntEnum):
    """The numbers of Docker's API."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One path, absolute inside the image."""

    path: bytes
    kind: ChangeKind


def changes(new: Merged, old: Merged) -> list[Change]:
    """What makes ``new`` out of ``old``, a directory before what is in it. Raises OSError."""
    found: list[Change] = []
    for name in sorted(new.beyond(old).names() | old.beyond(new).names()):
        now, before = new.child(name), old.child(name)
        path = b"/" + name
        if now is not None:
            found += _changes_at(path, now, before)
        elif before is not None:
            found.append(Change(path, ChangeKind.DELETED))
    return found


def _changes_at(path: bytes, now: MergedEntry, before: MergedEntry | None) -> list[Change]:
    inside: list[Change] = []
    if stat.S_ISDIR(now.status.st_mode):
        old = before.below if before is not None else Merged()
        inside = [Change(path + change.path, change.kind) for change in changes(now.below, old)]
    if before is None:
        kind = ChangeKind.ADDED
    elif inside or _differ(now, before):
        kind = ChangeKind.MODIFIED
    else:
        return []
    return [Change(path, kind), *inside]


def _differ(now: MergedEntry, before: MergedEntry) -> bool:
    new, old = now.status, before.status
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (
        old.st_mode,
        old.st_uid,
        old.st_gid,
        old.st_rdev,
    ):
        return True
    if _capability(now.place) != _capability(before.place):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return new.st_size != old.st_size or not _same_time(new.st_mtime_ns, old.st_mtime_ns)


def _same_time(one: int, other: int) -> bool:
    """Whole seconds may be what an archive has left of a time."""
    if one // _SECOND != other // _SECOND:
        return False
    return one == other or not one % _SECOND or not other % _SECOND


def _capability(path: bytes) -> bytes | None:
    try:
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return None


def size_of(diff: Path) -> int:
    """The bytes in a layer's own files, hard links counted once."""
    seen = set()
    total = 0
    for directory, _, names in os.walk(os.fsencode(diff)):
        for name in names:
            try:
                status = os.lstat(directory + b"/" + name)
            except FileNotFoundError:
                continue  # a container may be running
            if status.st_ino not in seen:
                total += status.st_size
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
    return total
