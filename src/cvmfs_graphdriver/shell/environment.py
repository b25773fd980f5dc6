"""A variable's value and where it was set; an environment of variables.

Must not know: files, parameters.
"""

from typing import NamedTuple, Self

__all__ = ["Environment", "Setting"]


class Setting(NamedTuple):
    """A value and its origin: a file (or a word such as "default") and the line, 0 if unknown."""

    value: str
    file: str
    line: int = 0

    @property
    def origin(self) -> str:
        """``file:line``, for messages."""
        return f"{self.file}:{self.line}" if self.line else self.file


class Environment:
    """The variables of a shell, and the names of the exported ones."""

    def __init__(self, settings: dict[str, Setting] | None = None, exported: set[str] | None = None) -> None:
        self.settings = settings or {}
        self.exported = exported or set()

    def copy(self) -> Self:
        """An independent copy."""
        return type(self)(dict(self.settings), set(self.exported))
