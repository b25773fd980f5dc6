"""Errors of the planes: a repository cannot be given to the kernel.

Raised only by this room, with codes from 56 on; what a system call refused is told by ``kernel.errors``.
"""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["LayerNotFoundError", "MountPointError", "PlaneError", "ServerError"]


class PlaneError(CvmfsGraphdriverError):
    """Base of everything this room raises."""

    exit_code: ClassVar[int] = 56


class MountPointError(PlaneError):
    """The place where a repository should appear does not exist, is no directory, or is taken."""

    exit_code: ClassVar[int] = 57


class ServerError(PlaneError):
    """The process that should serve a repository did not come up.

    ``reason_code`` is the exit code of the error that stopped it, which is also how a command should end.
    """

    exit_code: ClassVar[int] = 58

    def __init__(self, message: str, reason_code: int = 0) -> None:
        super().__init__(message)
        self.reason_code = reason_code or self.exit_code


class LayerNotFoundError(PlaneError):
    """A repository has no such layer, also in its newest revision."""

    exit_code: ClassVar[int] = 59
