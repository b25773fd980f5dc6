"""Errors of the CernVM-FS format: a repository's data cannot be read or cannot be trusted.

Raised only by this room. "Format" errors mean that bytes do not have the form that the format reference
gives; "trust" errors mean that the form is right but the proof is not.
"""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["CatalogError", "DigestMismatchError", "FormatError", "RepositoryError", "TrustError"]


class RepositoryError(CvmfsGraphdriverError):
    """Base of everything this room raises."""

    exit_code: ClassVar[int] = 10


class FormatError(RepositoryError):
    """Bytes that should be a manifest, whitelist, digest, xattr blob or history are not one."""

    exit_code: ClassVar[int] = 11


class TrustError(RepositoryError):
    """A signature, fingerprint, name, date or revision does not prove what it should."""

    exit_code: ClassVar[int] = 12


class DigestMismatchError(RepositoryError):
    """Bytes do not have the digest that names them."""

    exit_code: ClassVar[int] = 13


class CatalogError(RepositoryError):
    """A catalog is not a database with a readable schema, or contradicts itself."""

    exit_code: ClassVar[int] = 14
