"""The snapshotter's configuration file, in TOML.

Owns: its keys, their defaults, and messages for mistakes: which line, and what to write instead. Must not
know: what the values do.
"""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from cvmfs_graphdriver.planes.choice import Choice
from cvmfs_graphdriver.snapshotter.errors import SnapshotterConfigurationError

__all__ = ["SnapshotterConfiguration"]

_FQRN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEVELS: Final = ("debug", "info", "warning", "error")
_RESERVED: Final = re.compile(r"[,:\\\s]")
"""What cannot stand in a path among the options of a mount."""


@dataclass(frozen=True, slots=True)
class SnapshotterConfiguration:
    """The values of all keys; docs/snapshotter.md describes them."""

    repositories: tuple[str, ...] = ()
    state: Path = Path("/var/lib/cvmfs-snapshotter")
    socket: Path = Path("/run/cvmfs-snapshotter/snapshotter.sock")
    cvmfs_config: Path = Path("/etc/cvmfs")
    data_plane: Choice = Choice.AUTO
    cache_quota: int | None = None
    lookup_timeout: float = 10.0
    remap_ids: bool = False
    log_level: str = "info"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises SnapshotterConfigurationError, with all mistakes."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SnapshotterConfigurationError(f"cannot read {path}: {error}") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read a file's content. Raises SnapshotterConfigurationError, with all mistakes."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SnapshotterConfigurationError(f"{name} is not valid TOML: {error}") from error
        values: dict[str, Any] = {}
        mistakes = []
        for key, value in table.items():
            read = _READERS.get(key)
            try:
                if read is None:
                    known = ", ".join(field.name for field in fields(cls))
                    raise ValueError(f"there is no such key; known are {known}")
                values[key] = read(value)
            except ValueError as error:
                mistakes.append(f"{name}, line {_line_of(key, text)}: {key}: {error}")
        if mistakes:
            raise SnapshotterConfigurationError("; ".join(mistakes))
        return cls(**values)


def _line_of(key: str, text: str) -> int:
    """The line on which a key of the topmost table begins."""
    begin = re.search(rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""", text, re.MULTILINE)
    return text.count("\n", 0, begin.end()) + 1 if begin else 1


def _repositories(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError('write a list of names, such as ["unpacked.cern.ch"]')
    for each in value:
        if not _FQRN.fullmatch(each):
            raise ValueError(f"{each!r} is not a valid name of a repository")
        if value.count(each) > 1:
            raise ValueError(f"{each} is listed twice")
    return tuple(value)


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("write an absolute path in quotes")
    return Path(value)


def _state(value: Any) -> Path:
    path = _path(value)
    if _RESERVED.search(str(path)) or ".." in path.parts:
        raise ValueError("choose a path without commas, colons, backslashes, white space and '..'")
    return path


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _number(least: float, kind: type[int | float]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
            raise ValueError(f"write a number that is at least {least:g}")
        return kind(value)

    return read


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")  # noqa: TRY004 - as all readers do
    return value


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "repositories": _repositories,
    "state": _state,
    "socket": _path,
    "cvmfs_config": _path,
    "data_plane": lambda value: Choice(_one_of(*Choice)(value)),
    "cache_quota": _number(1, int),
    "lookup_timeout": _number(0.1, float),
    "remap_ids": _boolean,
    "log_level": _one_of(*_LEVELS),
}
