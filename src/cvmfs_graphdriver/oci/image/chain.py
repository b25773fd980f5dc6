"""Chains of layers: their identifiers, and the record that a repository keeps of each.

Owns: how a chain ID follows from diffIDs (OCI image specification 1.1, config.md, "Layer ChainID"), and the
form of a record (docs/repository-layout.md): a directory, named after the chain ID, of two symbolic links,

    /.chains/<first 2 digits>/<chain ID>/layer   where the chain's topmost layer is unpacked
    /.chains/<first 2 digits>/<chain ID>/diff    that layer's diffID, ``sha256:<digits>``

Must not know: how links are stored and looked up. What a link says is never followed, only read: it is valid
in one form, and everything else is refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ReferenceFormatError, ThinImageFormatError

__all__ = ["CHAINS", "ChainRecord", "chain_id", "chain_ids", "record_directory", "unpacked_directory"]

CHAINS: Final = b"/.chains"
"""The directory of all records in a repository."""
_LAYERS: Final = b"/.layers"
_UP: Final = b"../../.."
"""From a record's directory to the root of the repository."""
_LIMIT: Final = 1024
_PLACE: Final = re.compile(rb"(?:/[^/\0-\x1f\x7f]{1,255})*/([0-9a-f]{64})", re.ASCII)
_HIDDEN: Final = re.compile(rb"/\.")


def chain_id(parent: ContentDigest | None, diff_id: ContentDigest) -> ContentDigest:
    """The identifier of a layer on top of the chain ``parent``; None below a base layer."""
    return diff_id if parent is None else ContentDigest.of(f"{parent} {diff_id}".encode())


def chain_ids(diff_ids: Iterable[ContentDigest]) -> Iterator[ContentDigest]:
    """The identifiers of an image's chains, the base layer's first."""
    chain: ContentDigest | None = None
    for diff_id in diff_ids:
        chain = chain_id(chain, diff_id)
        yield chain


def record_directory(chain: ContentDigest) -> bytes:
    """The absolute path of a chain's record."""
    return CHAINS + f"/{chain.hex[:2]}/{chain.hex}".encode()


def unpacked_directory(layer: ContentDigest) -> bytes:
    """The absolute path of a layer, given the digest of its blob, in the layout of unpacked.cern.ch."""
    return _LAYERS + f"/{layer.hex[:2]}/{layer.hex}/layerfs".encode()


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """The topmost layer of a chain: where it is unpacked in the same repository, and its digests."""

    directory: bytes
    """The absolute path of the layer's root."""
    layer: ContentDigest
    """The digest of the layer's blob, by which the directory is named."""
    diff_id: ContentDigest

    @classmethod
    def of(cls, directory: bytes, layer: ContentDigest, diff_id: ContentDigest) -> Self:
        """The record of a layer. Raises ThinImageFormatError: it would not be valid."""
        record = cls.parse(*cls(directory, layer, diff_id).links())
        if record.layer != layer:
            raise ThinImageFormatError(f"the layer {layer} is not in a directory of this name")
        return record

    @classmethod
    def parse(cls, layer: bytes, diff: bytes) -> Self:
        """Read the targets of a record's two links.

        Raises ThinImageFormatError: they point anywhere else than to the directory of a layer, or are not of
        the form above.
        """
        directory = layer.removeprefix(_UP)
        if len(layer) > _LIMIT or directory == layer:
            raise _refused("layer", layer, "it does not point to a directory of its repository")
        digest = _layer_at(directory)
        if digest is None:
            raise _refused("layer", layer, "it does not point to the directory of a layer")
        try:
            diff_id = ContentDigest.parse(diff.decode("ascii"))
        except (UnicodeDecodeError, ReferenceFormatError):
            raise _refused("diff", diff, "it is not a digest, such as sha256:<64 hex digits>") from None
        if diff_id.algorithm != "sha256":
            raise _refused("diff", diff, "only SHA-256 digests are supported")
        return cls(directory, digest, diff_id)

    def links(self) -> tuple[bytes, bytes]:
        """The targets of the links ``layer`` and ``diff``."""
        return _UP + self.directory, str(self.diff_id).encode()


def _layer_at(directory: bytes) -> ContentDigest | None:
    """The digest of the layer that a directory is for, if it has the path of one."""
    unpacked = directory.removesuffix(b"/layerfs")
    match = _PLACE.fullmatch(unpacked)
    if match is None:
        return None
    digest = ContentDigest("sha256", match[1].decode())
    if directory != unpacked:
        return digest if directory == unpacked_directory(digest) else None
    # As ``docker2cvmfs --sub`` places layers; hidden directories are not for layers but for records.
    return None if _HIDDEN.search(directory) else digest


def _refused(link: str, target: bytes, problem: str) -> ThinImageFormatError:
    shown = target[:200].decode("utf-8", "backslashreplace")
    return ThinImageFormatError(f"the link {link!r} of a chain's record is {shown!r}: {problem}")
