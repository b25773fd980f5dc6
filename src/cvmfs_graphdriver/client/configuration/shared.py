"""What a configuration repository may set: it comes over the network, from people who do not own the node.

Owns: the list of parameters that are left to the node's own files, with the reasons. Must not know: how files
are found and evaluated.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.shell.environment import Environment, Setting

__all__ = ["Ignored", "restrict"]

_KEYS = "CVMFS_KEYS_DIR"
_DISK = "decides where this node writes as root"
_PROGRAM = "changes how programs of this node run"
_FORBIDDEN = {
    "CVMFS_ALIEN_CACHE": _DISK,
    "CVMFS_DEBUGLOG": _DISK,
    "CVMFS_SUID": "makes setuid programs of repositories effective on this node",
    "CVMFS_TRACEFILE": _DISK,
    "CVMFS_USYSLOG": _DISK,
    "CVMFS_WORKSPACE": _DISK,
    **dict.fromkeys(("ENV", "GCONV_PATH", "IFS", "LOCPATH", "PATH", "PS4", "SHELLOPTS"), _PROGRAM),
}
_FORBIDDEN_PREFIXES = {
    "CVMFS_CACHE_": _DISK,
    "CVMFS_TALK_": "decides who administers this node's client",
    "BASH": _PROGRAM,
    "GLIBC_": _PROGRAM,
    "LD_": _PROGRAM,
}


class Ignored(NamedTuple):
    """A setting of the configuration repository that has no effect, and why."""

    name: str
    setting: Setting
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.setting.origin}) is ignored: it {self.why}"


def restrict(before: Environment, after: Environment, places: tuple[Path, ...]) -> list[Ignored]:
    """Undo in ``after`` what a file of the configuration repository must not do; returns what was ignored.

    ``before`` is the environment in which the file was evaluated; the repository's content is in ``places``.
    """
    ignored = []
    for name, why in _refused(before.settings, after.settings, places):
        old, new = before.settings.get(name), after.settings.get(name)
        if new is not None:
            ignored.append(Ignored(name, new, why))
        if old is None:
            del after.settings[name]
        else:
            after.settings[name] = old
        after.exported = (after.exported - {name}) | (before.exported & {name})
    return ignored


def _refused(
    before: Mapping[str, Setting], after: Mapping[str, Setting], places: tuple[Path, ...]
) -> Iterator[tuple[str, str]]:
    for name in sorted({*before, *after}):
        new = after.get(name)
        if new == before.get(name):
            continue
        why = _FORBIDDEN.get(name, "")
        for prefix, reason in _FORBIDDEN_PREFIXES.items():
            why = why or (reason if name.startswith(prefix) else "")
        if name == _KEYS and new is not None and not _is_inside(new.value, places):
            why = "names keys outside the configuration repository"
        if why:
            yield name, why


def _is_inside(value: str, places: tuple[Path, ...]) -> bool:
    path = Path(os.path.normpath(value.strip()))
    return any(path.is_relative_to(place) for place in places)
