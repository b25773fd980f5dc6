"""Removing a directory recursively, at any depth and even if it is in use.

Owns: that no link is followed and no mount entered, and that nesting has no limit: deep directories are moved
to the top first. Must not know: what is removed.
"""

import os
import secrets
import stat
from collections.abc import Callable

__all__ = ["remove_directory"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 50
"""The depth up to which directories are removed in place."""


def remove_directory(parent: int, name: bytes, refused: Callable[[OSError], None]) -> int:
    """Remove ``name`` from the open directory ``parent``; returns the number of bytes in its files.

    ``refused`` is called for everything that cannot be removed; the rest is removed nevertheless.
    """
    removal = _Removal(parent, os.fstat(parent).st_dev, refused)
    removal.directory(parent, name, name, 0)
    while removal.moved:
        removal.directory(parent, *removal.moved.popitem(), 0)
    return removal.size


class _Removal:
    """One removal; ``moved`` maps deep directories that were moved to ``top`` to their original paths."""

    def __init__(self, top: int, device: int, refused: Callable[[OSError], None]) -> None:
        self._top = top
        self._device = device
        self._refused = refused
        self.moved: dict[bytes, bytes] = {}
        self.size = 0

    def directory(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        """Remove one directory."""
        try:
            if depth > _DEPTH:
                moved = b".gone-" + secrets.token_hex(16).encode()
                os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=self._top)
                self.moved[moved] = path
                return
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                self._content(descriptor, path, depth)
            finally:
                os.close(descriptor)
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            error.filename = path
            self._refused(error)

    def _content(self, descriptor: int, path: bytes, depth: int) -> None:
        if os.fstat(descriptor).st_dev != self._device:
            return  # a mount: its mount point cannot be removed
        for name in map(os.fsencode, os.listdir(descriptor)):
            inside = path + b"/" + name
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(name, dir_fd=descriptor)
                    self.size += status.st_size if status.st_nlink == 1 else 0
                    continue
            except FileNotFoundError:
                continue
            except OSError as error:
                error.filename = inside
                self._refused(error)
                continue
            self.directory(descriptor, name, inside, depth + 1)
