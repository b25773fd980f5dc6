"""Errors of writing repositories: storage, transactions, what cannot be ingested."""

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
    """Base of everything this room raises; itself: a request that makes no sense for this repository."""

    exit_code: ClassVar[int] = 40


class StorageError(PublisherError):
    """The storage cannot be read or written: it is absent, full, or not permitted."""

    exit_code: ClassVar[int] = 41


class BusyError(PublisherError):
    """Somebody else is publishing in this repository."""

    exit_code: ClassVar[int] = 42


class IngestError(PublisherError):
    """An entry cannot be stored as the format wants it."""

    exit_code: ClassVar[int] = 43


class MissingObjectError(PublisherError):
    """An object that a revision refers to is not in the storage."""

    exit_code: ClassVar[int] = 45


class DamagedRepositoryError(PublisherError):
    """Checking a repository found what should not be."""

    exit_code: ClassVar[int] = 46


class KeyringError(PublisherError):
    """A key or certificate that publishing needs is missing or unusable."""

    exit_code: ClassVar[int] = 44


class UploadError(PublisherError):
    """A layer that was uploaded to be published is not what it should be, or does not get published."""

    exit_code: ClassVar[int] = 47


def innermost(error: BaseException) -> BaseException:
    """What really went wrong: HTTP libraries wrap errors in others, whose attribute ``reason`` they are."""
    reason = getattr(error, "reason", None)
    return innermost(reason) if isinstance(reason, BaseException) else error
