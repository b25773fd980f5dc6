"""Variant symlinks: ``$(NAME)`` and ``$(NAME:-default)`` in targets (format reference, section 4.3).

Owns: their expansion. Must not know: where variables come from.
"""

import re
from collections.abc import Mapping

__all__ = ["expand_variables"]

_VARIABLE = re.compile(rb"\$\(([^():]*)(?::-([^()]*))?\)")


def expand_variables(target: bytes, variables: Mapping[str, str]) -> bytes:
    """The target with every variable replaced; an unset one becomes its default, or nothing."""
    if b"$(" not in target:
        return target

    def value(match: re.Match[bytes]) -> bytes:
        name = match[1].decode("utf-8", "surrogateescape")
        if name in variables:
            return variables[name].encode("utf-8", "surrogateescape")
        return match[2] or b""

    return _VARIABLE.sub(value, target)
