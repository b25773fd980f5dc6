"""The WWW-Authenticate header of a 401 answer (RFC 9110, section 11.6.1).

Owns: the header's grammar. Must not know: how to answer a challenge.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Challenge", "parse_challenges"]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's name for a word
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|,|$)")
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A scheme and its parameters, both with names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Parse the challenges in a header, or in several joined by commas; anything else ends the list.

    >>> parse_challenges('Bearer realm="https://a/t",service="r", Basic realm="x"')[1].scheme
    'basic'
    """
    challenges: list[Challenge] = []
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = _ESCAPE.sub(r"\1", quoted) if quoted is not None else plain
            position = parameter.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges
