"""Errors of the installation."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["InstallationError"]


class InstallationError(CvmfsGraphdriverError):
    """An engine's configuration cannot be read, understood or written; nothing was changed."""

    exit_code: ClassVar[int] = 96
