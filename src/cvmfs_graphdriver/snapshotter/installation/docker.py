"""Docker's ``daemon.json`` with the snapshotter as its storage, and without it again.

Owns: the three settings: the containerd that knows the snapshotter, the snapshotter's name, and the feature
without which an upgraded Docker keeps its old image store. Must not know: files.
"""

import copy
import json
from typing import Any

from cvmfs_graphdriver.snapshotter.errors import InstallationError

__all__ = ["with_snapshotter", "without_snapshotter"]

_KEYS = (("containerd",), ("storage-driver",), ("features", "containerd-snapshotter"))


def with_snapshotter(content: bytes | None, name: str, containerd: str) -> bytes:
    """The file with the snapshotter; every other setting is kept. Raises InstallationError."""
    settings = _parse(content)
    wanted = copy.deepcopy(settings)
    for keys, value in zip(_KEYS, (containerd, name, True), strict=True):
        _set(wanted, keys, value)
    if content is not None and wanted == settings:
        return content
    return _written(wanted)


def without_snapshotter(content: bytes | None, original: bytes | None) -> bytes | None:
    """The file as it would be without the installation; ``original`` is what was there before it.

    What somebody changed since is kept. None: there is no need for the file. Raises InstallationError.
    """
    if content is None:
        return None
    settings, before = _parse(content), _parse(original)
    wanted = copy.deepcopy(settings)
    for keys in _KEYS:
        _restore(wanted, keys, before)
    if wanted == before:
        return original
    return content if wanted == settings else _written(wanted)


def _parse(content: bytes | None) -> dict[str, Any]:
    if content is None or not content.strip():
        return {}
    try:
        settings: Any = json.loads(content)
    except ValueError as error:
        raise InstallationError(f"Docker's daemon.json is not valid JSON: {error}; mend it first") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("features", {}), dict):
        raise InstallationError(
            "Docker's daemon.json does not have the form that dockerd expects; mend it first"
        )
    return settings


def _set(settings: dict[str, Any], keys: tuple[str, ...], value: object) -> None:
    *above, last = keys
    for key in above:
        settings = settings.setdefault(key, {})
    settings[last] = value


def _restore(settings: dict[str, Any], keys: tuple[str, ...], before: dict[str, Any]) -> None:
    first, *rest = keys
    if first not in settings:
        return
    if rest:
        _restore(settings[first], tuple(rest), before.get(first, {}))
        if not settings[first] and first not in before:
            del settings[first]
    elif first in before:
        settings[first] = before[first]
    else:
        del settings[first]


def _written(settings: dict[str, Any]) -> bytes:
    return json.dumps(settings, indent=4, ensure_ascii=False).encode() + b"\n"
