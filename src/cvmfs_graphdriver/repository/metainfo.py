"""What a repository says about itself: a JSON document (CernVM-FS format reference, section 6.3).

Owns: its fields and their text form. Must not know: where it is stored (the manifest names it by M).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Metainfo"]

_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Metainfo:
    """Who is responsible for a repository and where to fetch it from.

    ``custom`` is whatever else its owner wants to say.
    """

    administrator: str = ""
    email: str = ""
    organisation: str = ""
    description: str = ""
    url: str = ""
    recommended_stratum0: str = ""
    recommended_stratum1s: tuple[str, ...] = ()
    custom: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the document; absent fields are empty, unknown ones are ignored.

        Raises FormatError: it is not a JSON object, exceeds 64 KiB, or has a field of the wrong type.
        """
        if len(data) > _LIMIT:
            raise FormatError(f"the metainfo has {len(data)} bytes, more than {_LIMIT}")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the metainfo is not a JSON document: {error}") from error
        if not isinstance(document, dict):
            raise FormatError("the metainfo is not a JSON object")
        fields = {name: _text(document, name) for name in _TEXTS}
        servers = document.get("recommended-stratum1s", [])
        if not isinstance(servers, list) or not all(isinstance(server, str) for server in servers):
            raise FormatError("the metainfo's recommended-stratum1s is not a list of strings")
        custom = document.get("custom", {})
        if not isinstance(custom, dict):
            raise FormatError("the metainfo's custom is not a JSON object")
        return cls(
            **fields,
            recommended_stratum0=_text(document, "recommended-stratum0"),
            recommended_stratum1s=tuple(servers),
            custom=custom,
        )

    def export(self) -> bytes:
        """The document as it is stored, before compression; the same fields give the same bytes."""
        document = {name: getattr(self, name) for name in _TEXTS} | {
            "recommended-stratum0": self.recommended_stratum0,
            "recommended-stratum1s": list(self.recommended_stratum1s),
            "custom": dict(self.custom),
        }
        return (json.dumps(document, indent=2) + "\n").encode()


_TEXTS = ("administrator", "email", "organisation", "description", "url")


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise FormatError(f"the metainfo's {name} is not a string")
    return value
