"""Recipes: the images that a repository should have, as DUCC's YAML files list them (format reference, 17.3).

Owns: the form of the file, with file and line in every complaint; wildcards in tags; names of thin images.
Must not know: how an image is converted.
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
_KEYS: Final = frozenset({"version", "user", "cvmfs_repo", "output_format", "input"})
_DEFAULT_OUTPUT: Final = "$(scheme)://$(registry)/$(repository)_thin:$(tag)"
_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class RecipeInput:
    """One line of a recipe: an image, or by a pattern of tags any number of them."""

    place: str
    """File and line, for messages."""
    text: str
    scheme: str
    reference: ImageReference
    pattern: str = ""
    """A shell pattern that tags must match; empty for the one image of ``reference``."""

    @classmethod
    def parse(cls, place: str, text: str) -> Self:
        """Read ``https://REGISTRY/REPOSITORY[:TAG][@DIGEST]``, whose tag may hold ``*``, ``?`` and ``[…]``.

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
        """The images that a pattern stands for, of all ``tags`` of its repository, by the alphabet."""
        for tag in sorted(tags):
            if fnmatch.fnmatchcase(tag, self.pattern):
                yield self.reference.with_tag(tag)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe says; ``user`` is whose name is used to push, empty for whoever has logged in."""

    repository: str
    output_format: str
    inputs: tuple[RecipeInput, ...]
    user: str = ""

    @classmethod
    def parse(cls, name: str, data: bytes) -> Self:
        """Read a recipe; ``name`` is its file in messages.

        Raises RecipeError: not YAML, not of version 1, an unknown key, a value that cannot be; with the line.
        """
        document = _Mapping.load(name, data)
        document.refuse_others(_KEYS)
        if document.value("version") != _VERSION:
            raise document.error("version", f"only recipes of version {_VERSION} can be read")
        recipe = cls(
            repository=document.text("cvmfs_repo"),
            output_format=document.text("output_format", _DEFAULT_OUTPUT),
            inputs=tuple(RecipeInput.parse(place, text) for place, text in document.texts("input")),
            user=document.text("user", ""),
        )
        if recipe.inputs:
            try:
                recipe.output(recipe.inputs[0], recipe.inputs[0].reference)
            except RecipeError as error:
                raise document.error("output_format", str(error)) from error
        return recipe

    def output(self, source: RecipeInput, image: ImageReference) -> ImageReference:
        """The name of the thin image of ``image``, which ``source`` stands for.

        Raises RecipeError: the format does not give a name.
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
            raise RecipeError(f"output_format makes {text[:200]!r} of {image}: {error}") from error
        if output.digest is not None:
            raise RecipeError(f"output_format makes {text[:200]!r} of {image}: a thin image needs a tag")
        return output


class _Mapping:
    """The recipe as YAML gives it, with the lines of its keys."""

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._value = value

    @classmethod
    def load(cls, name: str, data: bytes) -> "_Mapping":
        from ruamel.yaml import YAML
        from ruamel.yaml.comments import CommentedMap
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        if len(data) > _LIMIT:
            raise RecipeError(f"{name}:1: a recipe of more than {_LIMIT} bytes is not read")
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
            raise RecipeError(f"{name}:1: a recipe is a mapping with the keys {', '.join(sorted(_KEYS))}")
        return cls(name, value)

    def refuse_others(self, known: frozenset[str]) -> None:
        """Complain of a key that is not ``known``: it would be a wish that nobody heeds."""
        for key in self._value:
            if key not in known:
                raise self.error(key, f"the key {key!r} is unknown; known are {', '.join(sorted(known))}")

    def error(self, key: str, problem: str) -> RecipeError:
        """A complaint about the line of ``key``."""
        return RecipeError(f"{self._place(key)}: {problem}")

    def value(self, key: str) -> Any:
        if key not in self._value:
            raise RecipeError(f"{self._name}:1: the key {key!r} is missing")
        return self._value[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not empty; ``default`` where the key is missing."""
        if default is not None and key not in self._value:
            return default
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"{key!r} is not a text")
        return value

    def texts(self, key: str) -> Iterator[tuple[str, str]]:
        """The strings of a list, each with its place."""
        values = self.value(key)
        if not isinstance(values, list):
            raise self.error(key, f"{key!r} is not a list")
        for number, value in enumerate(values):
            place = f"{self._name}:{values.lc.item(number)[0] + 1}"  # type: ignore[attr-defined]
            if not isinstance(value, str):
                raise RecipeError(f"{place}: {value!r} is not a text")
            yield place, value

    def _place(self, key: str) -> str:
        line = self._value.lc.key(key)[0] if key in self._value else 0
        return f"{self._name}:{line + 1}"
