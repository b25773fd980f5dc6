"""What is known of one snapshot: the vocabulary of this room.

Owns: kinds of snapshots, where a lazy one comes from, and the labels that have a meaning for us. Must not
know: where any of it is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from cvmfs_graphdriver.planes.plane import LayerPath

__all__ = [
    "BELOW_LABEL",
    "CHAIN_LABEL",
    "LAYER_LABEL",
    "LazySource",
    "Snapshot",
    "SnapshotKind",
    "field_of",
]

CHAIN_LABEL = "containerd.io/snapshot.ref"
"""At Prepare: the chain ID of the image's layer that is to be unpacked."""
BELOW_LABEL = "containerd.io/snapshot/parent-chain-id"
"""The chain ID of the layers below (containerd 2.3)."""
LAYER_LABEL = "containerd.io/snapshot/cri.layer-digest"
"""The digest of the layer's blob."""


class SnapshotKind(IntEnum):
    """Kinds of snapshots, with the numbers of the protocol."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class LazySource:
    """The layer in a repository that a lazy snapshot stands for; ``key`` says by what it was found."""

    layer: LayerPath
    key: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot. ``parent`` is the key of the one below, or empty; times are nanoseconds since 1970.

    ``why_not`` is why a layer that containerd asked for is not lazy. ``usage`` is (bytes, inodes) of a
    committed snapshot, once it has been determined.
    """

    id: int
    key: str
    parent: str
    kind: SnapshotKind
    created: int
    updated: int
    labels: Mapping[str, str] = field(default_factory=dict)
    source: LazySource | None = None
    why_not: str = ""
    usage: tuple[int, int] | None = None


def field_of(snapshot: Snapshot, path: Sequence[str]) -> str | None:
    """The value of a field in filters, as containerd names them; None if it is not present."""
    first, *rest = path
    if first == "labels":
        return snapshot.labels.get(".".join(rest))
    if first == "kind":
        return snapshot.kind.name.lower()
    return {"name": snapshot.key, "parent": snapshot.parent}.get(first)
