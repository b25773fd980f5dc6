"""Why each layer of an image or a container is lazy, or not.

Owns: finding the snapshots that somebody means by a name, and the sentences about them. Must not know: how
the result is presented.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.oci.image.chain import chain_ids
from cvmfs_graphdriver.snapshotter.administration.containerd_image import find_image
from cvmfs_graphdriver.snapshotter.errors import NoSuchSnapshotError
from cvmfs_graphdriver.snapshotter.metadata import Metadata
from cvmfs_graphdriver.snapshotter.snapshot import LazySource, Snapshot, SnapshotKind, chain_of

__all__ = ["LayerOrigin", "origins_of"]

_SHORT_ID: Final = re.compile(r"[0-9a-f]{12,63}")
_ID: Final = re.compile(r"[0-9a-f]{64}")
_UNNAMED: Final = (
    "containerd did not say which layer it unpacked (no label containerd.io/snapshot.ref); "
    "ctr does so only from containerd 2 on, without --local"
)
_FOUND_BY: Final = {"chain": "its chain ID", "layer": "the digest of its blob"}


@dataclass(frozen=True, slots=True)
class LayerOrigin:
    """A layer, topmost first: ``chain`` is its chain ID, or the snapshot's key if it has none.

    If it is lazy, the repository, its mounted revision (0 if it is not mounted), the layer's directory and by
    what it was found; otherwise ``why_not``.
    """

    chain: str
    lazy: bool
    repository: str = ""
    revision: int = 0
    path: str = ""
    found_by: str = ""
    why_not: str = ""


def origins_of(
    name: str, metadata: Metadata, socket: Path, revisions: Mapping[str, int]
) -> list[LayerOrigin]:
    """The layers of what ``name`` is: a container's ID, a chain ID, a snapshot's key, or an image.

    ``revisions`` are those of the mounted repositories. Only for images, containerd is asked at ``socket``.
    Raises NoSuchSnapshotError: it is none of these; what ``find_image`` raises.
    """
    snapshots = metadata.all()
    meant = _meant_by(name, snapshots)
    if meant is not None:
        return [
            _origin(each, revisions)
            for each in metadata.ancestry(meant.key)
            if each.kind is SnapshotKind.COMMITTED
        ]
    found = find_image(socket, name)
    if found is None:
        raise NoSuchSnapshotError(
            f"there is no image, container or snapshot {name!r}; for a container give its ID "
            "(docker inspect --format '{{.Id}}' NAME)"
        )
    namespace, image = found
    by_chain = _by_chain(namespace, snapshots)
    chains = [str(chain) for chain in chain_ids(layer.diff_id for layer in image.layers)]
    return [
        _origin(by_chain[chain], revisions) if chain in by_chain else _elsewhere(chain)
        for chain in reversed(chains)
    ]


def _meant_by(name: str, snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """The newest snapshot with this key, or with a key of containerd's that ends so."""
    for fits in (_equals, _begins):
        found = [each for each in snapshots if fits(each, name)]
        if found:
            return found[-1]
    return None


def _equals(snapshot: Snapshot, name: str) -> bool:
    chain = chain_of(snapshot) if snapshot.kind is SnapshotKind.COMMITTED else None
    return name in (snapshot.key, _last(snapshot.key), str(chain))


def _begins(snapshot: Snapshot, name: str) -> bool:
    """Docker's short form of a container's ID."""
    last = _last(snapshot.key)
    return bool(_SHORT_ID.fullmatch(name) and _ID.fullmatch(last)) and last.startswith(name)


def _last(key: str) -> str:
    """Containerd writes keys as ``<namespace>/<number>/<key>``."""
    return key.split("/", 2)[-1]


def _by_chain(namespace: str, snapshots: Iterable[Snapshot]) -> dict[str, Snapshot]:
    return {
        str(chain_of(each)): each
        for each in snapshots
        if each.kind is SnapshotKind.COMMITTED and each.key.startswith(f"{namespace}/")
    }


def _origin(snapshot: Snapshot, revisions: Mapping[str, int]) -> LayerOrigin:
    chain = chain_of(snapshot)
    shown = snapshot.key if chain is None else str(chain)
    if isinstance(snapshot.source, LazySource):
        layer = snapshot.source.layer
        found_by = _FOUND_BY.get(snapshot.source.key, snapshot.source.key)
        revision = revisions.get(layer.fqrn, 0)
        return LayerOrigin(shown, True, layer.fqrn, revision, os.fsdecode(layer.path), found_by)
    made_here = "it was made on this machine" if chain is None else _UNNAMED
    return LayerOrigin(shown, lazy=False, why_not=snapshot.why_not or made_here)


def _elsewhere(chain: str) -> LayerOrigin:
    why_not = "cvmfs-snapshotter does not have it: the image was pulled with another snapshotter"
    return LayerOrigin(chain, lazy=False, why_not=why_not)
