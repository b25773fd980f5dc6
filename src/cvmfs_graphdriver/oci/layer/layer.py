"""A layer as a stream of entries, decompressed from its blob and verified.

Owns: the pipeline blob → tar stream → entries, and the verification at its end. Must not know: where the blob
comes from, where the entries go.
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

    Nothing in a layer may be trusted before the iteration has ended without an error: only then are the
    digests of the blob (checked by its own reader) and of the tar stream known to be right.
    """

    def __init__(self, name: str, blob: ByteSource, diff_id: ContentDigest | None = None) -> None:
        """Read the layer in ``blob``; ``diff_id`` is the required digest of its tar stream, if known.

        Raises whatever reading the blob's first bytes raises.
        """
        stream = decompressed(name, blob)
        if diff_id is not None:
            stream = DigestReader(stream, Verifier(f"the tar stream of {name}", diff_id, None))
        self._tar = TarReader(name, stream)

    def __iter__(self) -> Iterator[LayerEntry]:
        """The entries; each can be read while it is the current one.

        Raises LayerFormatError: the layer is damaged, truncated, or has names that no file system should
        hold. ContentMismatchError: it is not what the image's documents promised. Whatever reading the blob
        raises.
        """
        return iter(self._tar)

    def read(self, size: int, /) -> bytes:
        """The next bytes of the current entry, ``b""`` at its end."""
        return self._tar.read(size)
