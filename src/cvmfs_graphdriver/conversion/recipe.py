"""Recipes: the images that a repository should have, in DUCC's YAML format (format reference, 17.3).

One key is ours: ``thin_images: false`` asks for layers and records of chains alone.

Owns: the format, with file and line in every error message; wildcards in tags; names of thin images. Must not
know: how an image is converted.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from cvmfs_graphdriver.conversion.errors import RecipeError
from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.reference import ImageReference

__all__ = ["Recipe", "RecipeInput"]

_LIMIT: Final = 4 << 20
_VERSION: Final = 1
_KEYS: Final = frozenset({"version", "user", "cvmfs_repo", "output_format", "thin_images", "input"})
_DEFAULT_OUTPUT: Final = "$(scheme)://$(registry)/$(repository)_thin:$(tag)"
_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class RecipeInput:
    """One line of a recipe: an image or, with a pattern of tags, any number of images."""

    place: str
    """File and line, for messages."""
    text: str
    scheme: str
    reference: ImageReference
    pattern: str = ""
    """A shell pattern for tags; empty for the single image ``reference``."""

    @classmethod
    def parse(cls, place: str, text: str) -> Self:
        """Parse ``https://REGISTRY/REPOSITORY[:TAG][@DIGEST]``; the tag may contain ``*``, ``?`` and ``[…]``.

        Raises RecipeError: anything else.
        """
        scheme, separator, name = text.partition("://")
        if not separator or scheme not in {"https", "http"}:
            raise RecipeError(f"{place}: {text[:200]!r} does not begin with https:// or http://")
        pattern = ""
        head, _, tag = name.rpartition(":")
        if head and "/" not in tag and _WILDCARDS & set(tag):
            name, pattern = head, tag
        try:
            return cls(place, text, scheme, ImageReference.parse(name), pattern)
        except ReferenceFormatError as error:
            raise RecipeError(f"{place}: {error}") from error

    def expand(self, tags: Iterable[str]) -> Iterator[ImageReference]:
        """The images that the pattern matches among all ``tags`` of its repository, sorted."""
        for tag in sorted(tags):
            if fnmatch.fnmatchcase(tag, self.pattern):
                yield self.reference.with_tag(tag)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe; ``user`` is the name used to push, empty for the credentials of docker login."""

    repository: str
    output_format: str
    inputs: tuple[RecipeInput, ...]
    user: str = ""
    thin_images: bool = True
    """Whether the images get thin images; otherwise only their layers and records are published."""

    @classmethod
    def parse(cls, name: str, data: bytes) -> Self:
        """Parse a recipe; ``name`` is its file in messages.

        Raises RecipeError, naming the line: not YAML, not version 1, an unknown key, an invalid value.
        """
        document = _Mapping.load(name, data)
        document.refuse_others(_KEYS)
        if document.value("version") != _VERSION:
            raise document.error("version", f"only recipes of version {_VERSION} are supported")
        recipe = cls(
            repository=document.text("cvmfs_repo"),
            output_format=document.text("output_format", _DEFAULT_OUTPUT),
            inputs=tuple(RecipeInput.parse(place, text) for place, text in document.texts("input")),
            user=document.text("user", ""),
            thin_images=document.flag("thin_images", default=True),
        )
        if not recipe.thin_images and document.has("output_format"):
            raise document.error("output_format", "with thin_images: false there are no thin images to name")
        if recipe.inputs:
            try:
                recipe.output(recipe.inputs[0], recipe.inputs[0].reference)
            except RecipeError as error:
                raise document.error("output_format", str(error)) from error
        return recipe

    def output(self, source: RecipeInput, image: ImageReference) -> ImageReference:
        """The name of the thin image of ``image``, which comes from the line ``source``.

        Raises RecipeError: ``output_format`` does not result in a valid name.
        """
        tag = f":{image.tag}" if image.tag else ""
        digest = f"@{image.digest}" if image.digest else ""
        text = self.output_format
        for variable, value in (
            ("scheme", source.scheme),
            ("registry", image.host),
            ("repository", image.repository),
            ("tag", image.tag),
            ("digest", str(image.digest or "")),
            ("reference", tag + digest),
            ("image", image.repository + tag + digest),
        ):
            text = text.replace(f"$({variable})", value)
        try:
            output = ImageReference.parse(text.partition("://")[2] or text)
        except ReferenceFormatError as error:
            raise RecipeError(f"output_format turns {image} into {text[:200]!r}: {error}") from error
        if output.digest is not None:
            raise RecipeError(f"output_format turns {image} into {text[:200]!r}: a thin image needs a tag")
        return output


class _Mapping:
    """The YAML mapping of a recipe, with the lines of its keys."""

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._value = value

    @classmethod
    def load(cls, name: str, data: bytes) -> "_Mapping":
        from ruamel.yaml import YAML
        from ruamel.yaml.comments import CommentedMap
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        if len(data) > _LIMIT:
            raise RecipeError(f"{name}:1: the recipe exceeds the limit of {_LIMIT} bytes")
        try:
            value = YAML(typ="rt", pure=True).load(data.decode())
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise RecipeError(f"{name}:{line}: this is not UTF-8") from error
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise RecipeError(f"{name}:{line}: this is not YAML: {error.problem or error.context}") from error
        except (YAMLError, ValueError, RecursionError) as error:
            raise RecipeError(f"{name}:1: this is not YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(value, CommentedMap):
            raise RecipeError(
                f"{name}:1: a recipe must be a mapping with the keys {', '.join(sorted(_KEYS))}"
            )
        return cls(name, value)

    def refuse_others(self, known: frozenset[str]) -> None:
        """Raise RecipeError for a key that is not ``known``, rather than ignore it silently."""
        for key in self._value:
            if key not in known:
                raise self.error(key, f"the key {key!r} is unknown; known are {', '.join(sorted(known))}")

    def error(self, key: str, problem: str) -> RecipeError:
        """An error at the line of ``key``."""
        return RecipeError(f"{self._place(key)}: {problem}")

    def value(self, key: str) -> Any:
        if key not in self._value:
            raise RecipeError(f"{self._name}:1: the key {key!r} is missing")
        return self._value[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty string; ``default`` if the key is missing."""
        if default is not None and key not in self._value:
            return default
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"{key!r} is not a string")
        return value

    def has(self, key: str) -> bool:
        return key in self._value

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value; ``default`` if the key is missing."""
        value = self._value.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"{key!r} is neither true nor false")
        return value

    def texts(self, key: str) -> Iterator[tuple[str, str]]:
        """The strings of a list, each with its file and line."""
        values = self.value(key)
        if not isinstance(values, list):
            raise self.error(key, f"{key!r} is not a list")
        for number, value in enumerate(values):
            place = f"{self._name}:{values.lc.item(number)[0] + 1}"  # type: ignore[attr-defined]
            if not isinstance(value, str):
                raise RecipeError(f"{place}: {value!r} is not a string")
            yield place, value

    def _place(self, key: str) -> str:
        line = self._value.lc.key(key)[0] if key in self._value else 0
        return f"{self._name}:{line + 1}"
