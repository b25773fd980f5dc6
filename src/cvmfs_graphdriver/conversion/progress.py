"""What a conversion tells whoever watches it.

Owns: the interface. Must not know: terminals.
"""

import threading
from collections.abc import Sequence
from typing import Protocol

from cvmfs_graphdriver.conversion.errors import HaltedError
from cvmfs_graphdriver.oci.image.model import ImageLayer
from cvmfs_graphdriver.oci.image.source import BlobReader

__all__ = ["CountingSource", "Progress"]


class Progress(Protocol):
    """Is told of the layers that have to be fetched; from several threads, for each layer in this order."""

    def begin(self, name: str, layers: Sequence[ImageLayer]) -> None:
        """The layers of image ``name`` that are not there yet, in the order in which they will be fetched."""
        ...

    def advance(self, layer: ImageLayer, count: int) -> None:
        """``count`` more bytes of the layer's blob have come."""
        ...

    def finish(self, layer: ImageLayer) -> None:
        """The layer is complete."""
        ...


class CountingSource:
    """A blob whose passing bytes are told to a watcher, until it is told to halt."""

    def __init__(
        self, blob: BlobReader, layer: ImageLayer, progress: Progress, halt: threading.Event | None = None
    ) -> None:
        self._blob = blob
        self._layer = layer
        self._progress = progress
        self._halt = halt

    def read(self, size: int, /) -> bytes:
        """The next bytes; raises HaltedError: nobody wants them any more, and what the blob raises."""
        if self._halt is not None and self._halt.is_set():
            raise HaltedError(f"layer {self._layer.descriptor.digest} was left unfinished")
        data = self._blob.read(size)
        self._progress.advance(self._layer, len(data))
        return data
