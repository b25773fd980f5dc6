"""Errors of the kernel room: what Linux refused, and what it cannot be asked.

Raised only by this room (and, for the planes above it, by ``planes/errors.py`` with codes 56-59). An error
that comes from a system call carries its ``errno``, so that callers can tell "busy" from "not permitted"
without reading the message. Ordinary file errors (FileNotFoundError and its kind) stay what they are.
"""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["ErofsError", "FuseError", "KernelError", "MountError", "OverlayError", "PathEscapeError"]


class KernelError(CvmfsGraphdriverError):
    """Base of everything this room raises. ``errno`` is 0 if no system call failed."""

    exit_code: ClassVar[int] = 50

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class MountError(KernelError):
    """A file system could not be mounted, moved, inspected or unmounted."""

    exit_code: ClassVar[int] = 51


class FuseError(KernelError):
    """``/dev/fuse`` is not there, or the kernel at its other end speaks another protocol."""

    exit_code: ClassVar[int] = 52


class OverlayError(KernelError):
    """Layers cannot be stacked: too many, too long a path, or a name that overlayfs cannot take."""

    exit_code: ClassVar[int] = 53


class ErofsError(KernelError):
    """A tree holds something for which the EROFS format has no place."""

    exit_code: ClassVar[int] = 54


class PathEscapeError(KernelError):
    """A path would have left the directory it must stay in, or runs through a symbolic link."""

    exit_code: ClassVar[int] = 55
