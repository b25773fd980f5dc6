"""Errors of writing repositories: storage, transactions, ingestion."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "BusyError",
    "DamagedRepositoryError",
    "IngestError",
    "KeyringError",
    "MissingObjectError",
    "PublisherError",
    "StorageError",
    "UploadError",
    "innermost",
]


class PublisherError(CvmfsGraphdriverError):
    """Base of this room's errors; raised itself for a request that makes no sense for the repository."""

    exit_code: ClassVar[int] = 40


class StorageError(PublisherError):
    """The storage cannot be read or written: it is missing, full, or access is denied."""

    exit_code: ClassVar[int] = 41


class BusyError(PublisherError):
    """Another publisher holds this repository's lock."""

    exit_code: ClassVar[int] = 42


class IngestError(PublisherError):
    """An entry cannot be stored as the format requires."""

    exit_code: ClassVar[int] = 43


class MissingObjectError(PublisherError):
    """An object that a revision refers to is not in the storage."""

    exit_code: ClassVar[int] = 45


class DamagedRepositoryError(PublisherError):
    """A check of the repository found damage."""

    exit_code: ClassVar[int] = 46


class KeyringError(PublisherError):
    """A key or certificate that publishing needs is missing or unusable."""

    exit_code: ClassVar[int] = 44


class UploadError(PublisherError):
    """An uploaded layer does not match its name, or could not be published."""

    exit_code: ClassVar[int] = 47


def innermost(error: BaseException) -> BaseException:
    """The root cause: HTTP libraries wrap errors in others and keep the inner one in ``reason``."""
    reason = getattr(error, "reason", None)
    return innermost(reason) if isinstance(reason, BaseException) else error
