"""Where layers lie in a repository.

Owns: the two layouts that readers know (format reference, sections 17 and 18). Must not know: what is in a
layer. A layer's directory is named by the digest of its blob, so it never changes once it is there.
"""

from dataclasses import dataclass
from typing import Protocol, Self

from cvmfs_graphdriver.conversion.errors import LayerPlaceError
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.thin import LayerLocation

__all__ = ["DirectoryLayout", "LayerLayout", "UnpackedLayout"]


class LayerLayout(Protocol):
    """Gives each layer its directory."""

    def directory(self, digest: ContentDigest) -> bytes:
        """The absolute path in the repository of the layer's root."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryLayout:
    """All layers side by side: ``/layers/<digest>``, as docker2cvmfs has always put them."""

    parent: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the parent directory, with or without slashes around it.

        Raises LayerPlaceError: it is the repository's root, or leads out of it.
        """
        try:
            location = LayerLocation.parse(f"cvmfs://any.repository/{text}")
        except ThinImageFormatError as error:
            raise LayerPlaceError(f"{text!r} cannot be the directory of layers: {error}") from error
        return cls(location.path)

    def directory(self, digest: ContentDigest) -> bytes:
        return self.parent + b"/" + digest.hex.encode()


@dataclass(frozen=True, slots=True)
class UnpackedLayout:
    """The layout of unpacked.cern.ch and of DUCC: ``/.layers/<first 2 digits>/<digest>/layerfs``."""

    def directory(self, digest: ContentDigest) -> bytes:
        return f"/.layers/{digest.hex[:2]}/{digest.hex}/layerfs".encode()
