"""Errors of the kernel room: what Linux refuses, and what it cannot do.

Only this room raises them (those of the planes, codes 56-59, are in ``planes/errors.py``). An error that
comes from a system call carries its ``errno``, so that callers can tell "busy" from "not permitted" without
reading the message. Ordinary file errors, such as FileNotFoundError, are passed on unchanged.
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
    """``/dev/fuse`` is not available, or the kernel speaks an unsupported version of the protocol."""

    exit_code: ClassVar[int] = 52


class OverlayError(KernelError):
    """Layers cannot be stacked: too many, too long a path, or a name that overlayfs cannot take."""

    exit_code: ClassVar[int] = 53


class ErofsError(KernelError):
    """A tree holds something that the EROFS format cannot store."""

    exit_code: ClassVar[int] = 54


class PathEscapeError(KernelError):
    """A path leads out of the directory it must stay in, or through a symbolic link."""

    exit_code: ClassVar[int] = 55
