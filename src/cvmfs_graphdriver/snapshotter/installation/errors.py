"""Errors of the installation."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["InstallationError"]


class InstallationError(CvmfsGraphdriverError):
    """An engine's configuration, or the service, cannot be read, understood, written or started."""

    exit_code: ClassVar[int] = 96
