"""Images whose layers are unpacked in a repository, with records in its index of chains."""

from collections.abc import Mapping, Sequence

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_id, record_directory, unpacked_directory
from cvmfs_graphdriver.snapshotter.snapshot import CHAIN_LABEL, LAYER_LABEL
from tests.support.entries import Item, symlink

__all__ = ["Image", "digest_of", "record"]


def digest_of(name: str) -> ContentDigest:
    return ContentDigest.of(name.encode())


class Image:
    """Layers in a repository, by number, base first: their digests and chain IDs."""

    def __init__(self, name: str, *numbers: int) -> None:
        self.layers = [digest_of(f"{name} layer {number}") for number in numbers]
        self.diff_ids = [digest_of(f"{name} diff {number}") for number in numbers]
        self.chains: list[ContentDigest] = []
        for diff_id in self.diff_ids:
            self.chains.append(chain_id(self.chains[-1] if self.chains else None, diff_id))

    def trees(self, trees: Sequence[Sequence[Item]]) -> dict[bytes, Sequence[Item]]:
        return {unpacked_directory(layer): tree for layer, tree in zip(self.layers, trees, strict=True)}

    def records(self, numbers: Sequence[int]) -> dict[bytes, Sequence[Item]]:
        return {
            record_directory(self.chains[number]): record(
                ChainRecord.of(
                    unpacked_directory(self.layers[number]), self.layers[number], self.diff_ids[number]
                )
            )
            for number in numbers
        }

    def labels(self, number: int, *, layer: bool = False) -> Mapping[str, str]:
        labels = {CHAIN_LABEL: str(self.chains[number])}
        return {**labels, LAYER_LABEL: str(self.layers[number])} if layer else labels


def record(found: ChainRecord) -> list[Item]:
    return [symlink(name, target) for name, target in zip(("/layer", "/diff"), found.links(), strict=True)]
