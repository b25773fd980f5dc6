"""An image into a repository: the layers that are not there yet, all in one transaction, and its thin.json.

Owns: which layers are needed, the order of things, and the account of them. Nothing becomes visible unless
all of it has been fetched, verified and stored. Must not know: how the image's source, the repository's
storage or a progress bar work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cvmfs_graphdriver.conversion.errors import AlreadyThinError, LayerPlaceError
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.conversion.progress import CountingSource, Progress
from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.oci.layer import LayerStream
from cvmfs_graphdriver.oci.model import Image, Layer
from cvmfs_graphdriver.oci.source import ImageSource
from cvmfs_graphdriver.oci.thin import THIN_FILE, LayerLocation, ThinImage, ThinLayer
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["Conversion", "convert", "describe", "distinct_layers"]

_MAX_THIN_LAYER = 2 << 20


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did: ``new`` layers were fetched and stored, ``shared`` ones were there already."""

    thin: ThinImage
    new: tuple[Layer, ...]
    shared: tuple[Layer, ...]
    revision: int
    """The repository's revision in which all layers are."""
    stored_bytes: int = 0
    """What the repository grew by, compressed."""
    known_objects: int = 0
    """Files and pieces of files that some other layer had brought before."""
    notes: tuple[str, ...] = field(default=())
    """What could not be kept as it was, a line each."""


def distinct_layers(image: Image) -> list[Layer]:
    """The layers of an image, base first, without repetitions.

    Of a layer that occurs more than once the topmost is kept: whatever it says decides there, so the ones
    below it make no difference, and no directory can be stacked twice.
    """
    topmost: dict[str, Layer] = {}
    for layer in reversed(image.layers):
        topmost.setdefault(str(layer.descriptor.digest), layer)
    return list(reversed(topmost.values()))


def describe(image: Image, repository: str, layout: LayerLayout) -> ThinImage:
    """The thin.json of an image whose layers lie, or will lie, in ``repository``.

    Raises UnsupportedImageError: it has a layer that cannot be put there.
    """
    layers = distinct_layers(image)
    for layer in layers:
        layer.descriptor.require_layer()
    return ThinImage(
        layers=tuple(
            ThinLayer(
                layer.descriptor.digest,
                LayerLocation(repository, layout.directory(layer.descriptor.digest)),
            )
            for layer in layers
        ),
        origin=image.origin,
    )


def convert(
    source: ImageSource, image: Image, repository: Repository, layout: LayerLayout, progress: Progress
) -> Conversion:
    """Bring the layers of an image into a repository, and publish them as one revision.

    Raises AlreadyThinError, LayerPlaceError, and what the source, the layers and the publisher raise; the
    repository is then as it was before.
    """
    thin = describe(image, repository.fqrn, layout)
    layers = distinct_layers(image)
    _refuse_thin(source, image.name, layers)
    with repository.transaction() as transaction:
        missing = [
            layer for layer in layers if not _is_there(transaction, layout.directory(layer.descriptor.digest))
        ]
        shared = tuple(layer for layer in layers if layer not in missing)
        if not missing:
            return Conversion(thin, (), shared, repository.manifest().revision)
        notes = _ingest(transaction, source, missing, layout, progress)
        known = transaction.objects.objects_known
        manifest = transaction.publish()
        return Conversion(
            thin=thin,
            new=tuple(missing),
            shared=shared,
            revision=manifest.revision,
            stored_bytes=transaction.objects.bytes_new,
            known_objects=known,
            notes=(*notes, *transaction.notes),
        )


def _ingest(
    transaction: Transaction,
    source: ImageSource,
    layers: Sequence[Layer],
    layout: LayerLayout,
    progress: Progress,
) -> list[str]:
    notes: list[str] = []
    progress.begin(source.name, layers)
    for layer in layers:
        digest = layer.descriptor.digest
        with source.blob(layer.descriptor) as blob:
            counted = CountingSource(blob, layer, progress)
            stream = LayerStream(f"layer {digest} of {source.name}", counted, layer.diff_id)
            transaction.ingest(layout.directory(digest), tree_entries(stream, notes))
        progress.finish(layer)
    return notes


def _is_there(transaction: Transaction, path: bytes) -> bool:
    entry = transaction.lookup(path)
    if entry is not None and not entry.is_directory:
        raise LayerPlaceError(
            f"{path.decode()} in the repository should be a layer's directory and is something else; "
            "remove it or choose another place for the layers"
        )
    return entry is not None


def _refuse_thin(source: ImageSource, name: str, layers: Sequence[Layer]) -> None:
    """A thin image is one small layer with one file; converting it again would bury its thin.json."""
    if len(layers) != 1 or layers[0].descriptor.size > _MAX_THIN_LAYER:
        return
    with source.blob(layers[0].descriptor) as blob:
        paths = [entry.path for entry in LayerStream(f"the layer of {name}", blob, layers[0].diff_id)]
    if paths == [b"/" + THIN_FILE]:
        raise AlreadyThinError(f"image {name} is a thin image already: there is nothing to convert")
