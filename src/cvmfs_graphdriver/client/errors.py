"""Errors of the client: configuration, network, cache, revisions.

Raised only by this room; what a repository's bytes fail to prove is told by ``repository.errors``. Names say
what failed, messages say to which object and what an administrator should do.
"""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "CacheError",
    "ClientError",
    "ConfigurationError",
    "NotFoundError",
    "RevisionError",
    "StaleInodeError",
    "TalkError",
    "TransferError",
    "UnreachableError",
]


class ClientError(CvmfsGraphdriverError):
    """Base of everything this room raises."""

    exit_code: ClassVar[int] = 20


class ConfigurationError(ClientError):
    """A parameter is missing or makes no sense; the message names the file and line that set it."""

    exit_code: ClassVar[int] = 21


class TransferError(ClientError):
    """Something could not be had from any server; the two subclasses say why."""

    exit_code: ClassVar[int] = 22


class UnreachableError(TransferError):
    """No server, or no proxy, answered as it should."""

    exit_code: ClassVar[int] = 23


class NotFoundError(TransferError):
    """Servers answered, and none of them has the object."""

    exit_code: ClassVar[int] = 24


class CacheError(ClientError):
    """The cache directory cannot be used: permissions, space, a damaged file."""

    exit_code: ClassVar[int] = 25


class RevisionError(ClientError):
    """The revision that should be mounted does not exist, or is blacklisted."""

    exit_code: ClassVar[int] = 26


class StaleInodeError(ClientError):
    """An inode number that no catalog of this workspace has ever had."""

    exit_code: ClassVar[int] = 27


class TalkError(ClientError):
    """A running client cannot be talked to."""

    exit_code: ClassVar[int] = 28
