"""One configured value and where it was set; an environment of them.

Owns: this vocabulary. Must not know: files, parameters.
"""

from dataclasses import dataclass, field
from typing import Self

__all__ = ["Environment", "Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and its origin: a file (or what stands for one) and the line in it, 0 if that is not known."""

    value: str
    file: str
    line: int = 0

    @property
    def origin(self) -> str:
        """``file:line``, for messages."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class Environment:
    """The variables of a shell, and the names of those that it exports."""

    settings: dict[str, Setting] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)

    def copy(self) -> Self:
        """An independent copy."""
        return type(self)(dict(self.settings), set(self.exported))
