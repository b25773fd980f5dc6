"""Errors of the planes: a repository cannot be presented to the kernel.

Only this room raises them, with codes from 56 on; failures of system calls are ``kernel.errors``.
"""

from typing import ClassVar

from cvmfs_graphdriver.client.errors import UnreachableError
from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["LayerNotFoundError", "MountPointError", "PlaneError", "ServerError"]


class PlaneError(CvmfsGraphdriverError):
    """Base of everything this room raises."""

    exit_code: ClassVar[int] = 56


class MountPointError(PlaneError):
    """The mount point does not exist, is not a directory, or is in use."""

    exit_code: ClassVar[int] = 57


class ServerError(PlaneError):
    """The process that serves a repository did not start.

    ``reason_code`` is the exit code of the error that stopped it, which a command should exit with, too.
    """

    exit_code: ClassVar[int] = 58

    def __init__(self, message: str, reason_code: int = 0) -> None:
        super().__init__(message)
        self.reason_code = reason_code or self.exit_code

    @property
    def is_unreachable(self) -> bool:
        """Whether the reason is that no server or proxy could be reached, which may be different soon."""
        return self.reason_code == UnreachableError.exit_code


class LayerNotFoundError(PlaneError):
    """A repository has no such layer, even in its newest revision."""

    exit_code: ClassVar[int] = 59
