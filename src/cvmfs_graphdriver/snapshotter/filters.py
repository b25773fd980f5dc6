"""containerd's filter language: which snapshots to list.

Owns: its grammar and meaning (containerd, ``pkg/filters``), without I/O:

    filter   := selector ("," selector)*              all must match; an empty filter always does
    selector := field ("." field)* (operator value)?  without an operator: the field is present
    field    := letters, digits and "_", or a quoted string
    operator := "==" | "!=" | "~="                    the last: a regular expression is found in the value
    value    := a quoted string, or anything up to a comma or white space

A quoted string stands in double quotes, with the escapes of Go; after ``~=`` also between two "/" or "|". Of
several filters one must match. Must not know: what is filtered.

Expressions are Python's, which agree with Go's in what filters use. An invalid one matches nothing.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cvmfs_graphdriver.snapshotter.errors import SnapshotRequestError

__all__ = ["Fields", "Filter", "parse_filters"]

Fields = Callable[[Sequence[str]], str | None]
"""Returns the value of a field, given its path; None if it is not present."""
Filter = Callable[[Fields], bool]

_LIMIT: Final = 65_536
_SPACE: Final = re.compile(r"\s*")
_FIELD: Final = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_VALUE: Final = re.compile(r"[^\s,./|\"=!~\0][^\s,\0]*")
_OPERATOR: Final = re.compile(r"[=!~]+")
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))")
_SIMPLE: Final = dict(zip("abfnrtv\\", "\a\b\f\n\r\t\v\\", strict=True))
_NEVER: Final = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class _Selector:
    """One condition on one field."""

    path: tuple[str, ...]
    operator: str = ""
    value: str = ""
    pattern: re.Pattern[str] = _NEVER

    def matches(self, fields: Fields) -> bool:
        found = fields(self.path)
        match self.operator:
            case "":
                return found is not None
            case "==":
                return found == self.value
            case "!=":
                return (found or "") != self.value
            case _:
                return self.pattern.search(found or "") is not None


def parse_filters(texts: Sequence[str]) -> Filter:
    """A condition that holds where one of the filters does; without any it always holds.

    Raises SnapshotRequestError: one of them is not valid.
    """
    parsed = [_FilterParser(text).selectors() for text in texts]
    if not parsed:
        return lambda _: True
    return lambda fields: any(all(selector.matches(fields) for selector in each) for each in parsed)


class _FilterParser:
    """Reads one filter from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def selectors(self) -> list[_Selector]:
        """All selectors; none for an empty filter."""
        if len(self._text) > _LIMIT:
            raise SnapshotRequestError(
                f"the filter {self._text[:80]!r}… has {len(self._text)} characters, more than {_LIMIT}"
            )
        if not self._text:
            return []
        found = [self._selector()]
        while self._at < len(self._text):
            if not self._skip(","):
                raise self._wrong("a comma is expected")
            found.append(self._selector())
        return found

    def _selector(self) -> _Selector:
        path = [self._field()]
        while self._skip("."):
            path.append(self._field())
        operator = self._take(_OPERATOR)
        if operator is None:
            return _Selector(tuple(path))
        if operator not in ("==", "!=", "~="):
            raise self._wrong(f"{operator} is not an operator; use ==, != or ~=")
        value = self._value('"/|' if operator == "~=" else '"')
        pattern = _NEVER
        if operator == "~=":
            with suppress(re.error, OverflowError, RecursionError):
                pattern = re.compile(value)
        return _Selector(tuple(path), operator, value, pattern)

    def _field(self) -> str:
        found = self._quoted('"')
        if found is None:
            found = self._take(_FIELD)
        if found is None:
            raise self._wrong("the name of a field is expected")
        return found

    def _value(self, quotes: str) -> str:
        found = self._quoted(quotes)
        if found is None:
            found = self._take(_VALUE)
        if found is None:
            raise self._wrong("a value is expected")
        return found

    def _quoted(self, quotes: str) -> str | None:
        """A quoted string, unquoted; None if there is none here."""
        quote = self._peek()
        if not quote or quote not in quotes:
            return None
        match = re.compile(rf"{re.escape(quote)}((?:[^\\\n{quote}]|\\.)*){re.escape(quote)}").match(
            self._text, self._at
        )
        if match is None:
            raise self._wrong(f"the closing {quote} is missing")
        unquoted = _ESCAPE.sub(lambda escape: self._unescaped(escape, quote), match[1])
        self._at = match.end()
        return unquoted

    def _unescaped(self, escape: re.Match[str], quote: str) -> str:
        for group, base in ((1, 16), (2, 16), (3, 16), (4, 8)):
            if escape[group]:
                number = int(escape[group], base)
                if number > 0x10FFFF:
                    break
                return chr(number)
        simple = quote if escape[5] == quote else _SIMPLE.get(escape[5] or "")
        if simple is None:
            raise self._wrong(f"{escape[0]} is not an escape sequence of Go")
        return simple

    def _peek(self) -> str:
        """The next character that is not white space."""
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._text[self._at : self._at + 1]

    def _skip(self, char: str) -> bool:
        if self._peek() != char:
            return False
        self._at += 1
        return True

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        self._peek()
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _wrong(self, problem: str) -> SnapshotRequestError:
        return SnapshotRequestError(
            f"the filter {self._text[:200]!r} is not valid: {problem} at character {self._at + 1}"
        )
