"""A layer as it comes out of its blob: decompressed, its digest checked, its entries one after the other.

Owns: the pipeline blob → tar stream → entries, and the verdict at its end. Must not know: where the blob
comes from, nor where the entries go.
"""

from collections.abc import Iterator

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.layer.compression import decompressed
from cvmfs_graphdriver.oci.layer.entry import LayerEntry
from cvmfs_graphdriver.oci.layer.tar import TarReader
from cvmfs_graphdriver.oci.verify import ByteSource, DigestReader, Verifier

__all__ = ["LayerStream"]


class LayerStream:
    """The entries of one layer, in one pass.

    Nothing of a layer may be believed before the iteration has ended without an error: only then are the
    blob's digest (which the blob's own reader checks) and the tar stream's known to be right.
    """

    def __init__(self, name: str, blob: ByteSource, diff_id: ContentDigest | None = None) -> None:
        """Read the layer in ``blob``; ``diff_id`` is the digest its tar stream must have, if that is known.

        Raises what reading the blob's first bytes raises.
        """
        stream = decompressed(name, blob)
        if diff_id is not None:
            stream = DigestReader(stream, Verifier(f"the tar stream of {name}", diff_id, None))
        self._tar = TarReader(name, stream)

    def __iter__(self) -> Iterator[LayerEntry]:
        """The entries, which can be read while they are the current one.

        Raises LayerFormatError: damaged, cut short, or with names that no file system should hold.
        ContentMismatchError: not what the image's documents promised. What reading the blob raises.
        """
        return iter(self._tar)

    def read(self, size: int, /) -> bytes:
        """The next bytes of the current entry, ``b""`` at its end."""
        return self._tar.read(size)
