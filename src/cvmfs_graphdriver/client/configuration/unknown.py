"""Parameters that have no effect.

There are misspelt ones, those that only the reference client supports, and those that a configuration
repository must not set. Owns: finding the first two kinds, and warning of each parameter only once. Must not
know: what other parameters mean.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.parameters import KNOWN_WITHOUT_MEANING, PARAMETERS
from cvmfs_graphdriver.client.configuration.search import Configuration
from cvmfs_graphdriver.shell.environment import Setting

__all__ = ["Unknown", "unknown_parameters", "warn_of_ineffective"]

_INSTANCES = "CVMFS_CACHE_"
"""The prefix of parameters of cache instances, which administrators name freely."""

_ALIKE = 0.85
"""How similar an unknown name must be to a parameter to count as a misspelling; all share a prefix."""

_told: set[str] = set()
_log = logging.getLogger(__name__)


class Unknown(NamedTuple):
    """``meant`` is the parameter probably meant, if any; ``elsewhere``: the reference client supports it."""

    name: str
    setting: Setting
    elsewhere: bool
    meant: str


def unknown_parameters(settings: Mapping[str, Setting]) -> Iterator[Unknown]:
    """All ``CVMFS_`` variables that have no effect here, by name."""
    for name, setting in sorted(settings.items()):
        if name.startswith("CVMFS_") and name not in PARAMETERS:
            import difflib  # rarely needed

            elsewhere = name in KNOWN_WITHOUT_MEANING or name.startswith(_INSTANCES)
            near = [] if elsewhere else difflib.get_close_matches(name, PARAMETERS, 1, _ALIKE)
            yield Unknown(name, setting, elsewhere, near[0] if near else "")


def warn_of_ineffective(configuration: Configuration) -> None:
    """Log each parameter of all three kinds once in the lifetime of this process."""
    texts = [str(ignored) for ignored in configuration.ignored]
    for unknown in unknown_parameters(configuration):
        hint = f"; did you mean {unknown.meant}?" if unknown.meant else ""
        texts.append(f"{unknown.name} has no effect here ({unknown.setting.origin}){hint}")
    for text in texts:
        if text not in _told:
            _told.add(text)
            _log.warning("%s", text)
