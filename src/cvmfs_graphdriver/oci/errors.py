"""Errors of images and registries: content that is unavailable, malformed, or not what was promised.

Raised only by this room. "Format" errors mean that bytes do not have the form that their specification
requires; "mismatch" means well-formed bytes that are not those promised. Every message names the registry,
image, blob or file that it is about.
"""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "ContentMismatchError",
    "CredentialsError",
    "ImageFormatError",
    "ImageNotFoundError",
    "LayerFormatError",
    "OciError",
    "ReferenceFormatError",
    "RegistryReplyError",
    "RegistryUnreachableError",
    "ThinImageFormatError",
    "UnsupportedImageError",
]


class OciError(CvmfsGraphdriverError):
    """Base of everything this room raises."""


class ReferenceFormatError(OciError):
    """A text is not a valid name of an image, platform or digest."""

    exit_code: ClassVar[int] = 30


class RegistryUnreachableError(OciError):
    """A registry cannot be reached: name resolution, connection or TLS failed, or time ran out."""

    exit_code: ClassVar[int] = 31


class RegistryReplyError(OciError):
    """A registry answered with a failure of its own, or with something outside the protocol."""

    exit_code: ClassVar[int] = 32


class CredentialsError(OciError):
    """A registry rejects the credentials, or they cannot be read."""

    exit_code: ClassVar[int] = 33


class ImageNotFoundError(OciError):
    """A registry, layout or archive does not have the requested image, blob or platform."""

    exit_code: ClassVar[int] = 34


class UnsupportedImageError(OciError):
    """The image is well-formed, but of a kind that cannot be converted."""

    exit_code: ClassVar[int] = 35


class ContentMismatchError(OciError):
    """Bytes do not match their digest or size."""

    exit_code: ClassVar[int] = 36


class ImageFormatError(OciError):
    """A manifest, index or configuration does not conform to its specification."""

    exit_code: ClassVar[int] = 37


class LayerFormatError(OciError):
    """A layer is not a readable tar stream, or contains names that no file system should hold."""

    exit_code: ClassVar[int] = 38


class ThinImageFormatError(OciError):
    """A ``thin.json``, the record of a chain or a layer's location is malformed."""

    exit_code: ClassVar[int] = 39
