"""Errors of the evaluation of configuration files.

Owns: the error of this room. The client turns it into its own ``ConfigurationError``.
"""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["ShellError"]


class ShellError(CvmfsGraphdriverError):
    """A file cannot be evaluated; the message says which file and line, why, and what to do."""

    exit_code: ClassVar[int] = 80
