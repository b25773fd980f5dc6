"""Variant symlinks: ``$(NAME)`` and ``$(NAME:-default)`` in targets (format reference, section 4.3).

Owns: their expansion. Must not know: where variables come from.

>>> expand_variables(b"$(HOME)/$(ARCH:-any)/lib", {"HOME": "/home/a"})
b'/home/a/any/lib'
"""

from collections.abc import Mapping

__all__ = ["expand_variables"]


def expand_variables(target: bytes, variables: Mapping[str, str]) -> bytes:
    """The target with every variable replaced; an unset one becomes its default, or nothing.

    A variable ends at the first closing parenthesis, whatever stands before it. What is put in is not
    expanded again.
    """
    pieces = []
    done = 0
    while (start := target.find(b"$(", done)) >= 0 and (end := target.find(b")", start)) >= 0:
        name, _, default = target[start + 2 : end].partition(b":-")
        known = variables.get(name.decode("utf-8", "surrogateescape"))
        pieces += [target[done:start], default if known is None else known.encode("utf-8", "surrogateescape")]
        done = end + 1
    pieces.append(target[done:])
    return b"".join(pieces)
