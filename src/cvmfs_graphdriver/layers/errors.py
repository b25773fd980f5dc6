"""Errors of layers on disk."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["ApplyError", "LayerError", "LayerStateError", "NoSuchLayerError", "UnmappedOwnerError"]


class LayerError(CvmfsGraphdriverError):
    """Base of everything this room raises."""

    exit_code: ClassVar[int] = 70


class NoSuchLayerError(LayerError):
    """A layer, or a parent that it needs, is not on this disk."""

    exit_code: ClassVar[int] = 71


class LayerStateError(LayerError):
    """What is on the disk contradicts the request, or cannot be changed."""

    exit_code: ClassVar[int] = 72


class ApplyError(LayerError):
    """A layer's content cannot be taken in: it is hostile, broken, or does not fit on the disk."""

    exit_code: ClassVar[int] = 73


class UnmappedOwnerError(LayerError):
    """A file's owner has no number in the user namespace of containers."""

    exit_code: ClassVar[int] = 74
