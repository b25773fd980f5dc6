"""User namespaces: the labels that say how ids of a container are mapped.

Owns: their form, ``<inside>:<outside>:<size>[,…]`` (containerd, ``core/snapshots/snapshotter.go``), and what
they mean for a new snapshot: its root belongs to the container's root, and whoever mounts it maps the layers
below. Must not know: directories, mounts.
"""

import re
from collections.abc import Mapping
from typing import Final

from cvmfs_graphdriver.layers.errors import UnmappedOwnerError
from cvmfs_graphdriver.layers.idmap import IdMap, IdRange, Owners
from cvmfs_graphdriver.snapshotter.errors import SnapshotRequestError

__all__ = ["map_options", "mapped_root"]

_LABELS: Final = {
    "uidmap": "containerd.io/snapshot/uidmapping",
    "gidmap": "containerd.io/snapshot/gidmapping",
}
_RANGE: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)


def map_options(labels: Mapping[str, str]) -> list[str]:
    """The options of a mount by which containerd maps ids; none without labels."""
    return [f"{option}={labels[label]}" for option, label in _LABELS.items() if label in labels]


def mapped_root(labels: Mapping[str, str]) -> tuple[int, int] | None:
    """The user and group of the container's root; None without labels.

    Raises SnapshotRequestError: only one is given, or one is invalid or does not map 0.
    """
    texts = [labels.get(label) for label in _LABELS.values()]
    if texts == [None, None]:
        return None
    try:
        return Owners(*(_parse(text or "") for text in texts)).root
    except UnmappedOwnerError:
        raise SnapshotRequestError(f"the labels {' and '.join(_LABELS.values())} do not map id 0") from None


def _parse(text: str) -> IdMap:
    ranges = [_RANGE.fullmatch(part) for part in text.split(",")]
    if not all(ranges):
        raise SnapshotRequestError(f"{text[:80]!r} is not a mapping of ids, such as 0:100000:65536")
    return IdMap([IdRange(*map(int, each.groups())) for each in ranges if each])
