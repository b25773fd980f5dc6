"""The command ``test`` of the shell (POSIX.1-2017, test: by the number of arguments).

Owns: exit statuses of conditions in configuration fragments. Must not know: variables, syntax.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["evaluate_test"]

_ERROR = 2
_CONNECTIVES = frozenset({"!", "(", ")", "<", ">"})


def evaluate_test(arguments: Sequence[str], locate: Callable[[str], Path]) -> int | None:
    """The exit status: 0 true, 1 false, 2 invalid (which also counts as false); None: not supported here.

    ``locate`` returns the path of the file that an operand names.
    """
    match arguments:
        case []:
            return 1
        case [text]:
            return int(not text)
        case [left, operator, right] if operator in _BINARY:
            return _BINARY[operator](left, right)
        case ["(", text, ")"]:
            return int(not text)
        case ["!", *rest] if len(rest) <= 3:
            status = evaluate_test(rest, locate)
            return 1 - status if status in {0, 1} else status
        case [operator, operand] if operator in _PREDICATES:
            return int(not (operand and _holds(_PREDICATES[operator], locate(operand))))
        case ["-z", text]:
            return int(bool(text))
        case ["-n", text]:
            return int(not text)
        case _ if any(argument in _CONNECTIVES or argument.startswith("-") for argument in arguments):
            return None
        case _:
            return _ERROR


def _holds(predicate: Callable[[Path], bool], path: Path) -> bool:
    """As in bash, what cannot be examined is absent, such as a name that is too long."""
    try:
        return predicate(path)
    except (OSError, ValueError):
        return False


def _number(comparison: Callable[[int, int], bool]) -> Callable[[str, str], int]:
    def compare(left: str, right: str) -> int:
        try:
            return int(not comparison(int(left), int(right)))
        except ValueError:
            return _ERROR

    return compare


_BINARY: dict[str, Callable[[str, str], int]] = {
    "=": lambda left, right: int(left != right),
    "==": lambda left, right: int(left != right),
    "!=": lambda left, right: int(left == right),
    "-a": lambda left, right: int(not (left and right)),
    "-o": lambda left, right: int(not (left or right)),
    "-eq": _number(lambda left, right: left == right),
    "-ne": _number(lambda left, right: left != right),
    "-lt": _number(lambda left, right: left < right),
    "-le": _number(lambda left, right: left <= right),
    "-gt": _number(lambda left, right: left > right),
    "-ge": _number(lambda left, right: left >= right),
}

_PREDICATES: dict[str, Callable[[Path], bool]] = {
    "-e": Path.exists,
    "-f": Path.is_file,
    "-d": Path.is_dir,
    "-L": Path.is_symlink,
    "-h": Path.is_symlink,
    "-s": lambda path: path.exists() and path.stat().st_size > 0,
    "-r": lambda path: os.access(path, os.R_OK),
    "-w": lambda path: os.access(path, os.W_OK),
    "-x": lambda path: os.access(path, os.X_OK),
}
