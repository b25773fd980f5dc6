"""What a layer changes, compared with the layers below it, as Docker reports it.

Owns: the comparison of a layer's directory with the directories below (overlayfs' form of deletions and
opaque directories). Follows Docker's own rules for overlay2, of which the odd one is that an opaque
directory is reported as deleted, followed by what it holds as added. Must not know: how layers are mounted.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from cvmfs_graphdriver.kernel.overlay import OPAQUE_VALUE, OPAQUE_XATTR, is_whiteout

__all__ = ["Change", "ChangeKind", "changes", "is_opaque", "size_of"]


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


def is_opaque(path: bytes | str) -> bool:
    """Whether a directory of a layer hides what the layers below have in it."""
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=False) == OPAQUE_VALUE
    except OSError:
        return False


def changes(diff: Path, below: Sequence[Path]) -> list[Change]:
    """All changes that the layer in ``diff`` makes to the stack ``below`` (topmost first)."""
    found: dict[bytes, Change] = {}
    layers = [os.fsencode(path) for path in below]
    for path, status in _walk(os.fsencode(diff), b""):
        kind = _kind(os.fsencode(diff), path, status, layers)
        if kind is None:
            continue
        parts = path.split(b"/")
        for depth in range(2, len(parts)):
            above = b"/".join(parts[:depth])
            found.setdefault(above, Change(above, ChangeKind.MODIFIED))
        found[path] = Change(path, kind)
    return [found[path] for path in sorted(found)]


def size_of(diff: Path) -> int:
    """The bytes in a layer's own files, hard links counted once."""
    seen = set()
    total = 0
    for _, status in _walk(os.fsencode(diff), b""):
        if status.st_ino not in seen:
            total += status.st_size
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                seen.add(status.st_ino)
    return total


def _walk(root: bytes, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(root + path) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        below = path + b"/" + name
        status = os.lstat(root + below)
        yield below, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, below)


def _kind(diff: bytes, path: bytes, status: os.stat_result, layers: list[bytes]) -> ChangeKind | None:
    if is_whiteout(status.st_mode, status.st_rdev):
        return ChangeKind.DELETED
    if stat.S_ISDIR(status.st_mode) and is_opaque(diff + path):
        return ChangeKind.DELETED
    old = _find(layers, path)
    if old is None:
        return ChangeKind.ADDED
    if stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(old.st_mode):
        same = (status.st_mode, status.st_mtime_ns) == (old.st_mode, old.st_mtime_ns)
        if same and (status.st_uid, status.st_gid) == (old.st_uid, old.st_gid):
            return None
    return ChangeKind.MODIFIED


def _find(layers: list[bytes], path: bytes) -> os.stat_result | None:
    """The entry at ``path`` in the merged view of some layers; None if there is none."""
    parts = path.split(b"/")[1:]
    for layer in layers:
        at = layer
        opaque = False
        for number, part in enumerate(parts):
            at += b"/" + part
            try:
                status = os.lstat(at)
            except (FileNotFoundError, NotADirectoryError):
                break
            if is_whiteout(status.st_mode, status.st_rdev):
                return None
            if number == len(parts) - 1:
                return status
            if not stat.S_ISDIR(status.st_mode):
                return None
            opaque = opaque or is_opaque(at)
        if opaque:
            return None
    return None
