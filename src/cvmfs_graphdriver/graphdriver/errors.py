"""Errors of the graph driver's face to Docker."""

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
    """Base of everything this room raises."""

    exit_code: ClassVar[int] = 75


class RequestError(GraphDriverError):
    """A request that is not of the protocol's form."""

    exit_code: ClassVar[int] = 76


class NotInitialisedError(GraphDriverError):
    """A request before ``GraphDriver.Init``."""

    exit_code: ClassVar[int] = 77


class DriverOptionError(GraphDriverError):
    """A ``storage-opt`` that is unknown, or has a value that it cannot have."""

    exit_code: ClassVar[int] = 78


class UnsupportedHostError(GraphDriverError):
    """This host's kernel or file system cannot do what the driver needs."""

    exit_code: ClassVar[int] = 79
