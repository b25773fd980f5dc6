"""Parameters that change nothing: misspelt ones, and those of the reference client alone.

Owns: finding them, and telling of each only once. Must not know: what the others mean.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.parameters import KNOWN_WITHOUT_MEANING, PARAMETERS
from cvmfs_graphdriver.shell.environment import Setting

__all__ = ["Unknown", "unknown_parameters", "warn_of_unknown"]

_INSTANCES = "CVMFS_CACHE_"
"""What parameters of cache instances begin with, whose names administrators make up."""

_ALIKE = 0.85
"""How alike two names must be, of which one is taken for a misspelling; they all begin alike."""

_told: set[str] = set()
_log = logging.getLogger(__name__)


class Unknown(NamedTuple):
    """``meant`` is what was perhaps meant; ``elsewhere``: the reference client knows it."""

    name: str
    setting: Setting
    elsewhere: bool
    meant: str


def unknown_parameters(settings: Mapping[str, Setting]) -> Iterator[Unknown]:
    """All ``CVMFS_`` variables that have no meaning here, by name."""
    for name, setting in sorted(settings.items()):
        if name.startswith("CVMFS_") and name not in PARAMETERS:
            import difflib  # hardly anybody has such

            elsewhere = name in KNOWN_WITHOUT_MEANING or name.startswith(_INSTANCES)
            near = [] if elsewhere else difflib.get_close_matches(name, PARAMETERS, 1, _ALIKE)
            yield Unknown(name, setting, elsewhere, near[0] if near else "")


def warn_of_unknown(settings: Mapping[str, Setting]) -> None:
    """Log each of them, once in the life of this process."""
    for unknown in unknown_parameters(settings):
        if unknown.name not in _told:
            _told.add(unknown.name)
            hint = f"; did you mean {unknown.meant}?" if unknown.meant else ""
            _log.warning("%s has no meaning here (%s)%s", unknown.name, unknown.setting.origin, hint)
