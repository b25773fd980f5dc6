"""Errors of converting images that neither the registry nor the repository causes."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "AlreadyThinError",
    "ConversionError",
    "HaltedError",
    "IncompleteIndexError",
    "LayerPlaceError",
    "OutputError",
    "RecipeError",
    "RecipeIncompleteError",
]


class ConversionError(CvmfsGraphdriverError):
    """Base of everything this room raises."""


class AlreadyThinError(ConversionError):
    """The image to be converted is a thin image."""

    exit_code: ClassVar[int] = 60


class LayerPlaceError(ConversionError):
    """A layer's place in the repository is occupied by something else, or its path is invalid."""

    exit_code: ClassVar[int] = 61


class HaltedError(ConversionError):
    """A layer was abandoned because another one failed; that one's error is reported."""

    exit_code: ClassVar[int] = 63


class OutputError(ConversionError):
    """A file cannot be written: no space, no permission, no such directory."""

    exit_code: ClassVar[int] = 62


class RecipeError(ConversionError):
    """A recipe is malformed; the message names file and line."""

    exit_code: ClassVar[int] = 64


class IncompleteIndexError(ConversionError):
    """An image cannot be indexed, or not wholly, because the repository does not have what it takes."""

    exit_code: ClassVar[int] = 66


class RecipeIncompleteError(ConversionError):
    """Some of several images could not be converted; each failure has been reported."""

    exit_code: ClassVar[int] = 65
