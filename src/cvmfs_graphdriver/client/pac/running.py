"""Runs the little JavaScript that proxy configuration files are written in.

Owns: values and their conversions (ECMA-262), methods of strings, calls, and the bound on what a script may
compute: it is somebody else's program. Must not know: the syntax (``javascript_reader``), what a script is
for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "METHODS",
    "Expression",
    "Function",
    "Program",
    "Result",
    "Run",
    "Scope",
    "ScriptError",
    "Statement",
    "Value",
    "checked",
    "equal",
    "is_true",
    "plus",
    "to_number",
    "to_text",
]

_STEPS = 20_000
_DEPTH = 40
_STRING = 65_536

Value = str | float | bool | None
Scope = dict[str, Value]
Expression = Callable[["Run", Scope], Value]
Statement = Callable[["Run", Scope], "Result | None"]


class ScriptError(Exception):
    """The text is no script, or uses more of the language than is understood. Does not leave this room."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a ``return`` statement returned."""

    value: Value


@dataclass(frozen=True, slots=True)
class Function:
    """Names of the parameters, and what is done with them."""

    parameters: tuple[str, ...]
    body: Statement


@dataclass(slots=True)
class Program:
    """Functions by name, and what stands outside of them."""

    functions: dict[str, Function] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)


class Run:
    """One evaluation, which counts its steps. ``builtins`` are called with strings. Raises ScriptError."""

    def __init__(self, program: Program, builtins: Mapping[str, Callable[..., Value]]) -> None:
        self._functions = program.functions
        self._builtins = builtins
        self._steps = 0
        self.globals: Scope = {}
        for statement in program.statements:
            statement(self, self.globals)

    def step(self) -> None:
        """Count one step."""
        self._steps += 1
        if self._steps > _STEPS:
            raise ScriptError("it computes for too long")

    def call(self, name: str, arguments: Sequence[Value], depth: int = 0) -> Value:
        """What a function of the script, or a builtin one, returns."""
        self.step()
        function = self._functions.get(name)
        if function is None:
            builtin = self._builtins.get(name)
            if builtin is None:
                raise ScriptError(f"it calls {name}, which is not understood")
            return checked(builtin, [to_text(argument) for argument in arguments])
        if depth > _DEPTH:
            raise ScriptError("its functions call each other too deeply")
        padded = [*arguments, *[None] * len(function.parameters)]
        scope: Scope = dict(zip(function.parameters, padded, strict=False))
        scope["\0depth"] = float(depth + 1)
        result = function.body(self, scope)
        return result.value if result else None


def to_text(value: Value) -> str:
    """A value as a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return value


def to_number(value: Value) -> float:
    """A value as a number, perhaps one that is none."""
    if isinstance(value, str):
        try:
            return float(value or 0)
        except ValueError:
            return float("nan")
    return float(value or 0)


def is_true(value: Value) -> bool:
    """A value as a condition."""
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


def equal(left: Value, right: Value) -> bool:
    """The operator ``==``."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if left is None or right is None:
        return left is right
    return to_number(left) == to_number(right)


METHODS: dict[str, Callable[..., Value]] = {
    "toLowerCase": lambda text: text.lower(),
    "toUpperCase": lambda text: text.upper(),
    "indexOf": lambda text, part: float(text.find(part)),
    "lastIndexOf": lambda text, part: float(text.rfind(part)),
    "charAt": lambda text, index: text[_index(index, text) : _index(index, text) + 1],
    "substring": lambda text, start, end="inf": text[
        slice(*sorted((_index(start, text), _index(end, text))))
    ],
    "slice": lambda text, start, end="inf": text[_index(start, text) : _index(end, text)],
}


def _index(value: str, text: str) -> int:
    number = to_number(value)
    return 0 if math.isnan(number) else int(max(0, min(number, len(text))))


def plus(left: Value, right: Value) -> Value:
    """The operator ``+``."""
    if isinstance(left, str) or isinstance(right, str):
        joined = to_text(left) + to_text(right)
        if len(joined) > _STRING:
            raise ScriptError("it makes too long a string")
        return joined
    return to_number(left) + to_number(right)


def checked(function: Callable[..., Value], arguments: Sequence[str]) -> Value:
    """Call a function that takes strings. Raises ScriptError: it takes more or fewer."""
    try:
        return function(*arguments)
    except TypeError as error:
        raise ScriptError("it calls a function with a wrong number of arguments") from error
