"""Indexing images whose layers are in a repository already: records of their chains, and nothing else.

Owns: where layers are looked for, and which images the repository itself knows: in the layout of
unpacked.cern.ch it has the manifest of each, and the diffID of each layer (``layout.UnpackedLayout``). No
layer is fetched. Must not know: registries, how a record looks.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cvmfs_graphdriver.conversion.chains import needed_records, write_records
from cvmfs_graphdriver.conversion.errors import IncompleteIndexError
from cvmfs_graphdriver.conversion.layout import LayerLayout, UnpackedLayout
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.document import LIMIT
from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.model import ImageLayer, ImageManifest, parse_manifest
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["Indexed", "index_layers", "layers_of", "recorded_images"]

_IMAGES: Final = b"/.metadata"
_MANIFEST: Final = b"manifest.json"
_DEPTH: Final = 64
"""Levels of directories that names of images may have."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What indexing an image did, and how many of its layers are not in the repository."""

    records: int
    layers: int
    missing: int


def index_layers(
    transaction: Transaction, layers: tuple[ImageLayer, ...], layouts: tuple[LayerLayout, ...]
) -> Indexed:
    """Write the records that an image lacks, for its layers that are in any of the ``layouts``.

    Raises ThinImageFormatError, LayerPlaceError: as ``needed_records``; StorageError.
    """
    places: dict[ContentDigest, bytes] = {}
    for layer in layers:
        digest = layer.descriptor.digest
        for directory in (layout.directory(digest) for layout in layouts):
            entry = transaction.lookup(directory)
            if entry is not None and entry.is_directory:
                places.setdefault(digest, directory)
    records = needed_records(transaction, layers, places.get)
    write_records(transaction, records)
    missing = sum(layer.descriptor.digest not in places for layer in layers)
    return Indexed(len(records), len(layers), missing)


def recorded_images(transaction: Transaction) -> Iterator[str]:
    """The names of all images that the repository has a manifest of."""
    pending = [_IMAGES]
    while pending:
        directory = pending.pop()
        for entry in transaction.listing(directory):
            path = directory + b"/" + entry.name
            if entry.is_directory and path.count(b"/") < _DEPTH:
                pending.append(path)
            elif entry.is_regular and entry.name == _MANIFEST:
                yield directory.removeprefix(_IMAGES + b"/").decode("utf-8", "backslashreplace")


def layers_of(transaction: Transaction, name: str) -> tuple[ImageLayer, ...]:
    """The layers of a recorded image, base first, as the repository describes them.

    Raises IncompleteIndexError: the repository does not say enough; ImageFormatError, UnsupportedImageError;
    PublisherError, StorageError.
    """
    path = _IMAGES + f"/{name}/".encode() + _MANIFEST
    manifest = parse_manifest(f"the manifest of {name}", _read(transaction, path), "")
    if not isinstance(manifest, ImageManifest):
        raise IncompleteIndexError(f"{name} is recorded as an index of images; index each by its own name")
    return tuple(ImageLayer(layer, _diff_id(transaction, name, layer.digest)) for layer in manifest.layers)


def _diff_id(transaction: Transaction, name: str, digest: ContentDigest) -> ContentDigest:
    try:
        (record,) = json.loads(_read(transaction, UnpackedLayout().layer_record(digest)))
        return ContentDigest.parse(record["diff-digest"])
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError, ReferenceFormatError) as error:
        raise IncompleteIndexError(
            f"the repository does not record the diffID of the layer {digest}; "
            f"index the image by its name: docker2cvmfs index {name}"
        ) from error


def _read(transaction: Transaction, path: bytes) -> bytes:
    """A small file; empty if there is none, or if it is too big to be what it should be."""
    entry = transaction.lookup(path)
    return transaction.read_file(path) or b"" if entry is not None and entry.size <= LIMIT else b""
