"""A layer as a stream of entries, decompressed from its blob and verified.

Owns: the pipeline blob → tar stream → entries, and the verification at its end. Must not know: where the blob
comes from, where the entries go.
"""

from collections.abc import Iterator

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.layer.budget import BudgetReader, LayerBudget
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

    def __init__(
        self,
        name: str,
        blob: ByteSource,
        diff_id: ContentDigest | None = None,
        *,
        budget: LayerBudget | None = None,
    ) -> None:
        """Read the layer in ``blob``; ``diff_id`` is the required digest of its tar stream, if known.

        ``budget`` limits what it may cost.

        Raises whatever reading the blob's first bytes raises.
        """
        self._budget = budget
        stream = decompressed(name, blob)
        if budget is not None:
            stream = BudgetReader(stream, budget)
        if diff_id is not None:
            stream = DigestReader(stream, Verifier(f"the tar stream of {name}", diff_id, None))
        self._tar = TarReader(name, stream)

    def __iter__(self) -> Iterator[LayerEntry]:
        """The entries; each can be read while it is the current one.

        Raises LayerFormatError: the layer is damaged, truncated, exceeds its budget, or has names that no
        file system should hold. ContentMismatchError: it is not what the image's documents promised. Whatever
        reading the blob raises.
        """
        return iter(self._tar) if self._budget is None else self._within(self._budget)

    def read(self, size: int, /) -> bytes:
        """The next bytes of the current entry, ``b""`` at its end."""
        data = self._tar.read(size)
        if self._budget is not None:
            self._budget.spend(0)  # holes take time, too, but nothing of the stream
        return data

    def _within(self, budget: LayerBudget) -> Iterator[LayerEntry]:
        for entry in self._tar:
            budget.enter(entry)
            yield entry
