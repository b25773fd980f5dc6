"""What a configuration repository may set: it comes over the network, from people who do not own the node.

Owns: the list of parameters that it may set, and why others are left to the node's own files. Variables that
are no parameters are nobody's, so that files can calculate, and symbolic links can have them. Must not know:
how files are found and evaluated.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.parameters import KNOWN_WITHOUT_MEANING, PARAMETERS
from cvmfs_graphdriver.shell.environment import Environment, Setting

__all__ = ["Ignored", "restrict"]

_KEYS = "CVMFS_KEYS_DIR"
_ALLOWED = """
    ALT_ROOT_PATH AUTO_UPDATE BACKOFF_INIT BACKOFF_MAX BLACKLIST CLIENT_PROFILE DEFAULT_DOMAIN DNS_MAX_TTL
    DNS_MIN_TTL DNS_RETRIES DNS_SERVER DNS_TIMEOUT EXTERNAL_FALLBACK_PROXY EXTERNAL_HTTP_PROXY
    EXTERNAL_MAX_SERVERS EXTERNAL_TIMEOUT EXTERNAL_TIMEOUT_DIRECT EXTERNAL_URL FAILOVER_INDEFINITELY
    FALLBACK_PROXY FOLLOW_REDIRECTS HOST_RESET_AFTER HTTP_PROXY IPFAMILY_PREFER KEYS_DIR LOW_SPEED_LIMIT
    MAX_IPADDR_PER_PROXY MAX_RETRIES MAX_SERVERS MAX_TTL PAC_URLS PROXY_RESET_AFTER PROXY_SHARD PROXY_TEMPLATE
    PUBLIC_KEY REPOSITORY_DATE REPOSITORY_TAG ROOT_HASH SEND_INFO_HEADER SERVER_URL TIMEOUT TIMEOUT_DIRECT
    USE_GEOAPI
"""
_MAY_SET = frozenset("CVMFS_" + name for name in _ALLOWED.split())
"""Where content comes from, how it is fetched, which keys sign it, and which revision is shown."""
_NODE = "is for the node's own files"
_DISK = "decides where this node writes as root"
_PROGRAM = "changes how programs of this node run"
_WHY = {
    "CVMFS_ALIEN_CACHE": _DISK,
    "CVMFS_CHECK_PERMISSIONS": "decides whether permissions count on this node",
    "CVMFS_DEBUGLOG": _DISK,
    "CVMFS_SUID": "makes setuid programs of repositories effective on this node",
    "CVMFS_USYSLOG": _DISK,
    "CVMFS_WORKSPACE": _DISK,
    **dict.fromkeys(("ENV", "GCONV_PATH", "IFS", "LOCPATH", "PATH", "PS4", "SHELLOPTS"), _PROGRAM),
}
_WHY_PREFIXES = {
    "CVMFS_CACHE_": _DISK,
    "CVMFS_TALK_": "decides who administers this node's client",
    "BASH": _PROGRAM,
    "GLIBC_": _PROGRAM,
    "LD_": _PROGRAM,
}
"""Of other names than those of parameters, what has a reason here is refused, too."""


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
        why = _why(name)
        if name == _KEYS and new is not None and not _is_inside(new.value, places):
            why = "names keys outside the configuration repository"
        if why:
            yield name, why


def _why(name: str) -> str:
    """Why a name must not be set; empty if it may."""
    if name in _MAY_SET:
        return ""
    why = _WHY.get(name, "")
    for prefix, reason in _WHY_PREFIXES.items():
        why = why or (reason if name.startswith(prefix) else "")
    return why or (_NODE if name in PARAMETERS or name in KNOWN_WITHOUT_MEANING else "")


def _is_inside(value: str, places: tuple[Path, ...]) -> bool:
    path = Path(os.path.normpath(value.strip()))
    return any(path.is_relative_to(place) for place in places)
