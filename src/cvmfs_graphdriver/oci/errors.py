"""Errors of images and registries: what a registry said cannot be had, read or believed.

Raised only by this room. "Format" errors mean that bytes do not have the form that their specification gives;
"mismatch" means that the form is right and the bytes are not those that were promised. Every message names
the registry, image, blob or file that it is about.
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
    """A text that should name an image, a platform or a digest does not have the form of one."""

    exit_code: ClassVar[int] = 30


class RegistryUnreachableError(OciError):
    """No conversation with a registry is possible: name, connection, TLS, or time ran out."""

    exit_code: ClassVar[int] = 31


class RegistryReplyError(OciError):
    """A registry answered, but with a failure of its own or with what the protocol does not know."""

    exit_code: ClassVar[int] = 32


class CredentialsError(OciError):
    """A registry refuses who we are, or the credentials cannot be read."""

    exit_code: ClassVar[int] = 33


class ImageNotFoundError(OciError):
    """A registry, layout or archive does not have the image, the blob or the platform asked for."""

    exit_code: ClassVar[int] = 34


class UnsupportedImageError(OciError):
    """The image is what it says it is, but of a kind that cannot be converted."""

    exit_code: ClassVar[int] = 35


class ContentMismatchError(OciError):
    """Bytes do not have the digest or the size that names them."""

    exit_code: ClassVar[int] = 36


class ImageFormatError(OciError):
    """A manifest, index or configuration is not a document of its specification."""

    exit_code: ClassVar[int] = 37


class LayerFormatError(OciError):
    """A layer is not a tar stream that can be read, or names what no file system should hold."""

    exit_code: ClassVar[int] = 38


class ThinImageFormatError(OciError):
    """A ``thin.json`` or the location of a layer does not have its form."""

    exit_code: ClassVar[int] = 39
