"""Errors of converting images: what neither the registry nor the repository is to blame for."""

from typing import ClassVar

from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = [
    "AlreadyThinError",
    "ConversionError",
    "HaltedError",
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
    """Something that is no layer lies in the repository where a layer belongs, or the place has no name."""

    exit_code: ClassVar[int] = 61


class HaltedError(ConversionError):
    """A layer was left unfinished because another one failed, whose error is the one to be told."""

    exit_code: ClassVar[int] = 63


class OutputError(ConversionError):
    """A file cannot be written: no room, no permission, no such directory."""

    exit_code: ClassVar[int] = 62


class RecipeError(ConversionError):
    """A recipe does not have its form; the message names file and line."""

    exit_code: ClassVar[int] = 64


class RecipeIncompleteError(ConversionError):
    """Some of several images could not be converted; each has been told of."""

    exit_code: ClassVar[int] = 65
