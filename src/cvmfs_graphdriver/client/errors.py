"""Errors of the client: configuration, network, cache, revisions.

Raised only by this room; invalid data of a repository raises ``repository.errors``. Names say what failed,
messages name the object and what an administrator should do.
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
    """A parameter is missing or invalid; the message names the file and line that set it."""

    exit_code: ClassVar[int] = 21


class TransferError(ClientError):
    """Something could not be fetched from any server; the two subclasses say why."""

    exit_code: ClassVar[int] = 22


class UnreachableError(TransferError):
    """No server, or no proxy, answered correctly."""

    exit_code: ClassVar[int] = 23


class NotFoundError(TransferError):
    """Servers answered, and none of them has the object."""

    exit_code: ClassVar[int] = 24


class CacheError(ClientError):
    """The cache directory cannot be used: permissions, space, a damaged file."""

    exit_code: ClassVar[int] = 25


class RevisionError(ClientError):
    """The requested revision does not exist, or is blacklisted."""

    exit_code: ClassVar[int] = 26


class StaleInodeError(ClientError):
    """An inode number that no catalog in this workspace has ever had."""

    exit_code: ClassVar[int] = 27


class TalkError(ClientError):
    """A running client cannot be reached through its talk socket."""

    exit_code: ClassVar[int] = 28
