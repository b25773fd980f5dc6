"""From a layer to the directories that are stacked for it.

Owns: the order, and how a thin layer is resolved. The directory of a thin layer contains only ``thin.json``;
for layers above it, the layers named there take its place. Only when the thin layer itself is mounted (as
Docker does to read a layer's files for a push), its own directory is on top. Must not know: how a repository
is mounted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.kernel.overlay import LAYER_LIMIT
from cvmfs_graphdriver.layers.errors import LayerStateError
from cvmfs_graphdriver.layers.store import StoredLayer
from cvmfs_graphdriver.oci.image.thin import LayerLocation

__all__ = ["LayerSource", "sources_above", "sources_of"]


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One directory of a stack: on this disk, or in a repository."""

    directory: Path | None = None
    location: LayerLocation | None = None

    def __str__(self) -> str:
        return self.location.url if self.location is not None else str(self.directory)


def sources_above(ancestry: Sequence[StoredLayer]) -> list[LayerSource]:
    """The directories below a child of ``ancestry[0]``, from the top to the base. Raises LayerStateError.

    A thin layer may also name the layers of the thin layers below it, so that it is complete by itself. Each
    directory is used once, at its topmost position: overlayfs refuses duplicates, and lower ones are hidden.
    """
    found: list[LayerSource] = []
    for layer in ancestry:
        thin = layer.thin
        if thin is None:
            found.append(LayerSource(directory=layer.diff))
        else:
            found += [LayerSource(location=part.location) for part in reversed(thin.layers)]
    found = list(dict.fromkeys(found))
    if len(found) > LAYER_LIMIT:
        raise LayerStateError(
            f"{len(found)} layers are more than the {LAYER_LIMIT} that overlayfs can stack; squash the image"
        )
    return found


def sources_of(ancestry: Sequence[StoredLayer]) -> list[LayerSource]:
    """The directories of the layer ``ancestry[0]`` and of those below it, from the top to the base."""
    top = ancestry[0]
    below = sources_above(ancestry) if top.thin is not None else sources_above(ancestry[1:])
    return [LayerSource(directory=top.diff), *below]
