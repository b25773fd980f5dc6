"""Errors of layers on disk."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["ApplyError", "LayerError", "LayerStateError", "NoSuchLayerError", "UnmappedOwnerError"]


class LayerError(CvmfsGraphdriverError):
    """Base of all errors that this room raises."""

    exit_code: ClassVar[int] = 70


class NoSuchLayerError(LayerError):
    """A layer, or one of its parents, is not on this disk."""

    exit_code: ClassVar[int] = 71


class LayerStateError(LayerError):
    """The state on disk contradicts the request, or cannot be changed."""

    exit_code: ClassVar[int] = 72


class ApplyError(LayerError):
    """A layer cannot be unpacked: it is hostile or damaged, or the disk is full."""

    exit_code: ClassVar[int] = 73


class UnmappedOwnerError(LayerError):
    """A file's owner has no id in the user namespace of containers."""

    exit_code: ClassVar[int] = 74
