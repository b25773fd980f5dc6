"""Where layers are in a repository, and what is beside them.

Owns: the two layouts that readers know (format reference, sections 17 and 18). Must not know: what a layer
contains. A layer's directory is named after the digest of its blob, so it never changes once it exists.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from cvmfs_graphdriver.conversion.errors import LayerPlaceError
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ReferenceFormatError, ThinImageFormatError
from cvmfs_graphdriver.oci.image.model import Image, ImageLayer
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.image.thin import LayerLocation

__all__ = ["DirectoryLayout", "LayerLayout", "UnpackedLayout"]


FileReader = Callable[[bytes], bytes | None]


class LayerLayout(Protocol):
    """Assigns each layer its directory."""

    def directory(self, digest: ContentDigest) -> bytes:
        """The absolute path of the layer's root in the repository."""
        ...

    def catalogs(self, digest: ContentDigest) -> tuple[bytes, ...]:
        """Directories above it that have catalogs of their own, topmost first.

        Thus the root catalog, which every client loads, does not grow with the layers.
        """
        ...

    def records(self, image: Image, read: FileReader) -> Iterator[tuple[bytes, bytes]]:
        """The files that record which images there are: paths and required content.

        ``read`` returns the present content of a path, None if there is none.
        """
        ...


@dataclass(frozen=True, slots=True)
class DirectoryLayout:
    """All layers side by side: ``/layers/<digest>``, as docker2cvmfs has always done."""

    parent: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the parent directory, with or without surrounding slashes.

        Raises LayerPlaceError: it is the repository's root, or leads out of it.
        """
        try:
            location = LayerLocation.parse(f"cvmfs://any.repository/{text}")
        except ThinImageFormatError as error:
            raise LayerPlaceError(f"{text!r} is not a valid directory for layers: {error}") from error
        return cls(location.path)

    def directory(self, digest: ContentDigest) -> bytes:
        return self.parent + b"/" + digest.hex.encode()

    def catalogs(self, digest: ContentDigest) -> tuple[bytes, ...]:
        del digest
        return (self.parent,)

    def records(self, image: Image, read: FileReader) -> Iterator[tuple[bytes, bytes]]:
        """None: the thin image contains all the information."""
        del image, read
        return iter(())


class UnpackedLayout:
    """The layout of unpacked.cern.ch and of DUCC: ``/.layers/<first 2 digits>/<digest>/layerfs``.

    Its records are those that DUCC's garbage collection and its podman store read: for each layer, the images
    that use it and its digests; for each image name, the manifest.
    """

    _TOP: Final = b"/.layers"

    def directory(self, digest: ContentDigest) -> bytes:
        return self._home(digest) + b"/layerfs"

    def catalogs(self, digest: ContentDigest) -> tuple[bytes, ...]:
        return self._TOP, self._home(digest).rpartition(b"/")[0]

    def records(self, image: Image, read: FileReader) -> Iterator[tuple[bytes, bytes]]:
        origin = str(image.manifest.config.digest)
        created = json.loads(image.config.raw).get("created")
        for layer in image.layers:
            record = self.layer_record(layer.descriptor.digest)
            yield record, _dump([_layer_record(layer, created)])
            path = record.rpartition(b"/")[0] + b"/origin.json"
            origins = _origins(read(path))
            yield path, _dump({"origin": origins if origin in origins else [*origins, origin]})
        try:
            name = ImageReference.parse(image.name)
        except ReferenceFormatError:
            return  # from a layout or an archive, whose name means nothing elsewhere
        path = f"/.metadata/{name}/manifest.json".encode()
        yield path, image.manifest.raw

    def layer_record(self, digest: ContentDigest) -> bytes:
        """The file that records a layer's digests."""
        return self._home(digest) + b"/.metadata/layers.json"

    def _home(self, digest: ContentDigest) -> bytes:
        return self._TOP + f"/{digest.hex[:2]}/{digest.hex}".encode()


def _layer_record(layer: ImageLayer, created: object) -> dict[str, Any]:
    """What containers/storage needs to know about a layer."""
    record = {
        "id": layer.diff_id.hex,
        "compressed-diff-digest": str(layer.descriptor.digest),
        "compressed-size": layer.descriptor.size,
        "diff-digest": str(layer.diff_id),
    }
    return {**record, "created": created} if isinstance(created, str) else record


def _origins(data: bytes | None) -> list[str]:
    """The images that an ``origin.json`` lists; a damaged one counts as empty and is rewritten."""
    try:
        origins = json.loads(data or b"{}").get("origin", [])
    except (ValueError, AttributeError):
        return []
    return [origin for origin in origins if isinstance(origin, str)] if isinstance(origins, list) else []


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()
