"""Entries of trees to be published, in a word each."""

import io
import stat
from typing import Any

from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry

__all__ = ["Item", "device", "directory", "file", "hardlink", "symlink"]

Item = tuple[TreeEntry, io.BytesIO | None]


def file(path: str | bytes, content: bytes = b"", mode: int = 0o644, **more: Any) -> Item:
    return TreeEntry(_path(path), stat.S_IFREG | mode, **more), io.BytesIO(content)


def directory(path: str | bytes, mode: int = 0o755, **more: Any) -> Item:
    return TreeEntry(_path(path), stat.S_IFDIR | mode, **more), None


def symlink(path: str | bytes, target: bytes, **more: Any) -> Item:
    return TreeEntry(_path(path), stat.S_IFLNK | 0o777, symlink=target, **more), None


def hardlink(path: str | bytes, target: str | bytes) -> Item:
    return TreeEntry(_path(path), stat.S_IFREG | 0o644, hardlink=_path(target)), None


def device(path: str | bytes, kind: int, rdev: int = 0, **more: Any) -> Item:
    return TreeEntry(_path(path), kind | 0o600, rdev=rdev, **more), None


def _path(path: str | bytes) -> bytes:
    return path.encode() if isinstance(path, str) else path
