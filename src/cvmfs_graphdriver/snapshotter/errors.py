"""Errors of the snapshotter, and the gRPC status that tells containerd of each."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "InstallationError",
    "NoSuchSnapshotError",
    "SnapshotExistsError",
    "SnapshotRequestError",
    "SnapshotStateError",
    "SnapshotterConfigurationError",
    "SnapshotterError",
    "UnfitHostError",
]


class SnapshotterError(CvmfsGraphdriverError):
    """Base of all errors that this room raises; ``status`` is the name of a gRPC status code."""

    exit_code: ClassVar[int] = 90
    status: ClassVar[str] = "INTERNAL"


class NoSuchSnapshotError(SnapshotterError):
    """There is no snapshot with this key."""

    exit_code: ClassVar[int] = 91
    status: ClassVar[str] = "NOT_FOUND"


class SnapshotExistsError(SnapshotterError):
    """There is a snapshot with this key, or the layer that containerd asked for is already there."""

    exit_code: ClassVar[int] = 92
    status: ClassVar[str] = "ALREADY_EXISTS"


class SnapshotStateError(SnapshotterError):
    """The snapshot is of a kind, or has children, with which this cannot be done."""

    exit_code: ClassVar[int] = 93
    status: ClassVar[str] = "FAILED_PRECONDITION"


class SnapshotRequestError(SnapshotterError):
    """A request with an invalid key, label, filter or field mask."""

    exit_code: ClassVar[int] = 94
    status: ClassVar[str] = "INVALID_ARGUMENT"


class SnapshotterConfigurationError(SnapshotterError):
    """The configuration file cannot be read, or has a mistake."""

    exit_code: ClassVar[int] = 95
    status: ClassVar[str] = "FAILED_PRECONDITION"


class InstallationError(SnapshotterError):
    """An engine's configuration cannot be read, understood or written; nothing was changed."""

    exit_code: ClassVar[int] = 96
    status: ClassVar[str] = "FAILED_PRECONDITION"


class UnfitHostError(SnapshotterError):
    """Something on this host is in the way of lazy images."""

    exit_code: ClassVar[int] = 97
    status: ClassVar[str] = "FAILED_PRECONDITION"
