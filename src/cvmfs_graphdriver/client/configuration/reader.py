"""Typed access to an evaluated configuration.

Owns: how words, numbers, times, paths and booleans are written in configuration files, and errors that name
the file and line. Must not know: what any parameter means.
"""

import math
from collections.abc import Callable
from pathlib import Path

from cvmfs_graphdriver.client.addresses import shown_urls
from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.configuration.search import Configuration
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.shell.environment import Setting

__all__ = ["SettingReader"]


class SettingReader:
    """Typed access to a configuration, with defaults from the table and errors that name file and line."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.fqrn = configuration.fqrn
        self.exported = configuration.exported
        self.shared = configuration.shared

    def setting(self, name: str) -> Setting:
        default = Setting(PARAMETERS[name].default, "default", 0)
        return self._configuration.get(name, default)

    def text(self, name: str) -> str:
        return self.setting(name).value.strip()

    def boolean(self, name: str) -> bool:
        return self.text(name).upper() in {"YES", "ON", "TRUE", "1"}

    def number(self, name: str, minimum: int = 0) -> int:
        return int(self._parse(name, int, minimum))

    def seconds(self, name: str) -> float:
        return self._parse(name, float, 0)

    def _parse(self, name: str, kind: Callable[[str], float], minimum: float) -> float:
        text = self.text(name)
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not minimum <= value < 2**63:
            raise self.refusal(name, f"must be a number of at least {minimum:g}")
        return value

    def words(self, name: str, separator: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.text(name).split(separator) if word.strip())

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        if not text:
            return None
        if not text.startswith("/"):
            raise self.refusal(name, "is not an absolute path")
        return Path(text)

    def refusal(self, name: str, why: str) -> ConfigurationError:
        setting = self.setting(name)
        value = shown_urls(setting.value) if "URL" in name or "PROXY" in name else setting.value
        return ConfigurationError(f"{self.fqrn}: {name}={value!r} {why} (set by {setting.origin})")
