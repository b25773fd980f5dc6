"""Where configuration comes from: the files of /etc/cvmfs in their order, each value with its file and line.

Owns: the search order (CernVM-FS format reference, section 7.1) and the record of who set what. Must not
know: what any parameter means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.client.errors import ConfigurationError

__all__ = ["Configuration", "Setting", "load_configuration"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it was set: a file (or what stands for one) and the line in it, 0 for none."""

    value: str
    file: str
    line: int

    @property
    def origin(self) -> str:
        """``file:line``, for messages."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Configuration(Mapping[str, Setting]):
    """Every variable that the files set, and which of them they export."""

    fqrn: str
    settings: Mapping[str, Setting]
    exported: frozenset[str]
    files: tuple[Path, ...]

    def __getitem__(self, name: str) -> Setting:
        return self.settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)


def load_configuration(fqrn: str, etc: Path, overrides: Mapping[str, str]) -> Configuration:
    """Evaluate all files that configure ``fqrn``; ``overrides`` win over all of them."""
    _, _, domain = fqrn.partition(".")
    candidates = [
        etc / "default.conf",
        *sorted((etc / "default.d").glob("*.conf")),
        etc / "default.local",
        etc / "domain.d" / f"{domain}.conf",
        etc / "domain.d" / f"{domain}.local",
        etc / "config.d" / f"{fqrn}.conf",
        etc / "config.d" / f"{fqrn}.local",
    ]
    files = tuple(path for path in candidates if path.is_file())
    settings: dict[str, Setting] = {}
    for path in files:
        _evaluate(path, settings)
    for name, value in overrides.items():
        settings[name] = Setting(value, "command line", 0)
    return Configuration(fqrn, settings, frozenset(), files)


def _evaluate(path: Path, settings: dict[str, Setting]) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            settings[name] = Setting(value.strip("\"'"), str(path), number)
