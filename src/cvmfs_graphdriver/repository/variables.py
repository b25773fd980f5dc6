"""Variant symlinks: ``$(NAME)`` and ``$(NAME:-default)`` in targets (format reference, section 4.3).

Owns: their expansion. Must not know: where variables come from.
"""

import re
from collections.abc import Mapping

__all__ = ["expand_variables"]

# A variable ends at the first closing parenthesis, whatever stands before it.
_VARIABLE = re.compile(rb"\$\(([^)]*)\)")


def expand_variables(target: bytes, variables: Mapping[str, str]) -> bytes:
    """The target with every variable replaced; an unset one becomes its default, or nothing."""
    if b"$(" not in target:
        return target

    def value(match: re.Match[bytes]) -> bytes:
        name, _, default = match[1].partition(b":-")
        known = variables.get(name.decode("utf-8", "surrogateescape"))
        return default if known is None else known.encode("utf-8", "surrogateescape")

    return _VARIABLE.sub(value, target)
