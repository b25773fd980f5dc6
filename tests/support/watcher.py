"""Somebody who watches a conversion, and remembers what was told."""

from collections.abc import Sequence

from cvmfs_graphdriver.oci.image.model import ImageLayer

__all__ = ["Watcher"]


class Watcher:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.bytes = 0
        self.finished: list[str] = []

    def begin(self, name: str, layers: Sequence[ImageLayer]) -> None:  # noqa: ARG002
        self.begun += [str(layer.descriptor.digest) for layer in layers]

    def advance(self, layer: ImageLayer, count: int) -> None:  # noqa: ARG002
        self.bytes += count

    def finish(self, layer: ImageLayer) -> None:
        self.finished.append(str(layer.descriptor.digest))
