"""The plugin's settings (``docker plugin set``), which Docker passes as environment variables.

Owns: their names, valid values and defaults. An invalid value is replaced by the default and reported: Docker
cannot enable a plugin again that has ended because of a setting. Must not know: what they are used for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from cvmfs_graphdriver.graphdriver.boot_wait import BOOT_WAIT
from cvmfs_graphdriver.layers.mounts import IDLE
from cvmfs_graphdriver.planes.choice import Choice

__all__ = ["PluginSettings"]

_LEVELS = ("error", "warning", "info", "debug")
_MOST_DIGITS = 9
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """All settings; ``quota`` in MiB, None for the one in the configuration; ``problems`` are for people."""

    level: str
    plane: Choice
    idle: float
    boot_wait: float
    quota: int | None
    problems: tuple[str, ...]

    @classmethod
    def parse(cls, environment: Mapping[str, str]) -> Self:
        """Read all settings."""
        values = _Values(environment)
        level = values.one_of("LOG_LEVEL", _LEVELS, "info")
        plane = Choice(values.one_of("DATA_PLANE", tuple(Choice), Choice.AUTO))
        idle = values.number("IDLE_SECONDS")
        boot_wait = values.number("BOOT_WAIT_SECONDS")
        return cls(
            level,
            plane,
            idle=IDLE if idle is None else float(idle),
            boot_wait=BOOT_WAIT if boot_wait is None else float(boot_wait),
            quota=values.number("CACHE_QUOTA_MB"),
            problems=tuple(values.problems),
        )


class _Values:
    """The variables, and what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def one_of(self, name: str, values: tuple[str, ...], default: str) -> str:
        text = self._text(name)
        if not text or text.lower() in values:
            return text.lower() or default
        self._invalid(name, text, f"is not one of {', '.join(values)}")
        return default

    def number(self, name: str) -> int | None:
        text = self._text(name)
        if not text:
            return None
        if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS:
            return int(text)
        self._invalid(name, text, f"is not a whole number of at most {_MOST_DIGITS} digits")
        return None

    def _text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def _invalid(self, name: str, text: str, why: str) -> None:
        shown = "".join(each if each.isprintable() else "?" for each in text[:_SHOWN])
        self.problems.append(f"{name}={shown} {why}; using the default")
