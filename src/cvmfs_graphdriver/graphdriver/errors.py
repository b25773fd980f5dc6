"""Errors of the graph driver protocol."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "DriverOptionError",
    "GraphDriverError",
    "NotInitialisedError",
    "RequestError",
    "UnsupportedHostError",
]


class GraphDriverError(CvmfsGraphdriverError):
    """Base of all errors that this room raises."""

    exit_code: ClassVar[int] = 75


class RequestError(GraphDriverError):
    """A request that does not follow the protocol."""

    exit_code: ClassVar[int] = 76


class NotInitialisedError(GraphDriverError):
    """A request before ``GraphDriver.Init``."""

    exit_code: ClassVar[int] = 77


class DriverOptionError(GraphDriverError):
    """An unknown ``storage-opt``, or an invalid value."""

    exit_code: ClassVar[int] = 78


class UnsupportedHostError(GraphDriverError):
    """This host's kernel or file system cannot do what the driver needs."""

    exit_code: ClassVar[int] = 79
