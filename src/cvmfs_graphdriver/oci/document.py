"""Reading JSON from an untrusted source: bounded, with types checked on access.

Owns: the limits, and typed access to members. Must not know: which document it is; its name and the error to
raise come from the caller.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from cvmfs_graphdriver.oci.errors import OciError

__all__ = ["LIMIT", "Document"]

LIMIT = 4 << 20
"""Maximum size in bytes of any document; registries set the same limit for manifests."""

_MAX_DEPTH = 32


def _depth(value: object) -> int:
    """How deeply lists and objects are nested; the decoder's own recursion limit bounds it already."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON object within a document; ``name`` says in messages where it is."""

    name: str
    members: dict[str, Any]
    error: type[OciError]

    @classmethod
    def parse(cls, name: str, data: bytes, error: type[OciError], *, limit: int = LIMIT) -> "Document":
        """Parse ``data`` as one JSON object of at most ``limit`` bytes.

        Raises ``error``: too long, not UTF-8, not JSON, nested too deeply, or not an object.
        """
        if len(data) > limit:
            raise error(f"{name} is longer than the limit of {limit} bytes")
        try:
            value = json.loads(data.decode("utf-8"))
            too_deep = _depth(value) > _MAX_DEPTH
        except RecursionError:
            too_deep = True
        except ValueError as problem:
            raise error(f"{name} is not JSON: {problem}") from problem
        if too_deep:
            raise error(f"{name} is nested more than {_MAX_DEPTH} levels deep")
        return cls.of(name, value, error)

    @classmethod
    def of(cls, name: str, value: object, error: type[OciError]) -> "Document":
        """Wrap a decoded value, which must be an object."""
        if not isinstance(value, dict):
            raise error(f"{name} is not a JSON object")
        return cls(name, value, error)

    def refuse(self, problem: str) -> NoReturn:
        """Raise this document's error, with its name before ``problem``."""
        raise self.error(f"{self.name}: {problem}")

    def text(self, key: str) -> str:
        """A required member that must be a string."""
        value = self.members.get(key)
        if not isinstance(value, str):
            self.refuse(f"{key!r} is not a string")
        return value

    def optional_text(self, key: str) -> str:
        """A string; empty if the member is absent or null."""
        return "" if self.members.get(key) is None else self.text(key)

    def natural(self, key: str) -> int:
        """A required member that must be a non-negative integer of 63 bits."""
        value = self.members.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            self.refuse(f"{key!r} is not a non-negative integer")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty if the member is absent or null."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            self.refuse(f"{key!r} is not a list of strings")
        return tuple(values)

    def text_map(self, key: str) -> dict[str, str]:
        """An object whose members are strings; empty if the member is absent or null."""
        value = self.members.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            self.refuse(f"{key!r} is not an object of strings")
        return value

    def member(self, key: str) -> "Document":
        """A required member that must be an object."""
        return Document.of(f"{self.name}, {key}", self.members.get(key), self.error)

    def objects(self, key: str) -> Iterator["Document"]:
        """The objects in a list; none if the member is absent or null."""
        for number, value in enumerate(self._list(key)):
            yield Document.of(f"{self.name}, {key}[{number}]", value, self.error)

    def _list(self, key: str) -> list[Any]:
        value = self.members.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(f"{key!r} is not a list")
        return value
