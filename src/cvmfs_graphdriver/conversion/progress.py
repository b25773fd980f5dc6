"""The interface through which a conversion reports its progress.

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
    """Receives progress on the layers to fetch; from several threads, per layer in this order."""

    def begin(self, name: str, layers: Sequence[ImageLayer]) -> None:
        """These layers of image ``name`` are missing and will be fetched in this order."""
        ...

    def advance(self, layer: ImageLayer, count: int) -> None:
        """``count`` more bytes of the layer's blob have arrived."""
        ...

    def finish(self, layer: ImageLayer) -> None:
        """The layer is complete."""
        ...


class CountingSource:
    """A blob that reports the bytes read from it, and can be halted."""

    def __init__(
        self, blob: BlobReader, layer: ImageLayer, progress: Progress, halt: threading.Event | None = None
    ) -> None:
        self._blob = blob
        self._layer = layer
        self._progress = progress
        self._halt = halt

    def read(self, size: int, /) -> bytes:
        """The next bytes; raises HaltedError once halted, and whatever the blob raises."""
        if self._halt is not None and self._halt.is_set():
            raise HaltedError(f"layer {self._layer.descriptor.digest} was abandoned")
        data = self._blob.read(size)
        self._progress.advance(self._layer, len(data))
        return data
