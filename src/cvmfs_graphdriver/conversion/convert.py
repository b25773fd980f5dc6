"""An image into a repository: the layers that are not there yet, all in one transaction, and its thin.json.

Owns: which layers are needed, the order of things, and the account of them. Nothing becomes visible unless
all of it has been fetched, verified and stored. Must not know: how the image's source, the repository's
storage or a progress bar work.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from cvmfs_graphdriver.conversion.errors import AlreadyThinError, HaltedError, LayerPlaceError
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.conversion.progress import CountingSource, Progress
from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.oci.layer import LayerStream
from cvmfs_graphdriver.oci.model import Image, Layer
from cvmfs_graphdriver.oci.source import ImageSource
from cvmfs_graphdriver.oci.thin import THIN_FILE, LayerLocation, ThinImage, ThinLayer
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.publisher.tree_entry import ContentReader, TreeEntry

__all__ = ["Conversion", "convert", "describe", "distinct_layers"]

_MAX_THIN_LAYER = 2 << 20
_MARKER = b"/.cvmfscatalog"
_PARALLEL = 3
"""Layers fetched at once: enough to hide a registry's delays; the cores are busy with fewer."""


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
    with Transaction(repository) as transaction:
        missing = [
            layer for layer in layers if not _is_there(transaction, layout.directory(layer.descriptor.digest))
        ]
        shared = tuple(layer for layer in layers if layer not in missing)
        records = _changed_records(transaction, image, layout)
        if not (missing or records):
            return Conversion(thin, (), shared, repository.manifest().revision)
        _make_catalogs(transaction, missing, layout)
        notes = _ingest(transaction, source, missing, layout, progress)
        for path, data in records.items():
            transaction.write_file(path, data)
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


def _changed_records(transaction: Transaction, image: Image, layout: LayerLayout) -> dict[bytes, bytes]:
    """The layout's records of an image that are not in the repository as they should be."""
    records = layout.records(image, transaction.read_file)
    return {path: data for path, data in records if transaction.read_file(path) != data}


def _make_catalogs(transaction: Transaction, layers: Sequence[Layer], layout: LayerLayout) -> None:
    """Give the directories above layers catalogs of their own, if they are new.

    They get the stock tools' marker, too, which no container sees: it is outside of every layer.
    """
    for layer in layers:
        for path in layout.catalogs(layer.descriptor.digest):
            if transaction.lookup(path) is None:
                transaction.ingest(path, ())
                transaction.write_file(path + _MARKER, b"")


def _ingest(
    transaction: Transaction,
    source: ImageSource,
    layers: Sequence[Layer],
    layout: LayerLayout,
    progress: Progress,
) -> list[str]:
    """Take in the layers, several at a time, and tell what could not be kept.

    They end in their order, whichever comes fastest, so that the same image gives the same catalogs.
    """
    progress.begin(source.name, layers)
    halt = threading.Event()

    def take(layer: Layer, before: Future[list[str]] | None) -> list[str]:
        digest = layer.descriptor.digest
        notes: list[str] = []
        try:
            with source.blob(layer.descriptor) as blob:
                counted = CountingSource(blob, layer, progress, halt)
                stream = LayerStream(f"layer {digest} of {source.name}", counted, layer.diff_id)
                entries = _ending_after(tree_entries(stream, notes), before)
                transaction.ingest(layout.directory(digest), entries)
        except BaseException:
            halt.set()
            raise
        progress.finish(layer)
        return notes

    futures: list[Future[list[str]]] = []
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="layer") as pool:
        try:
            for layer in layers:
                futures.append(pool.submit(take, layer, futures[-1] if futures else None))
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            halt.set()
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in errors:
        if not isinstance(error, HaltedError):
            raise error
    return [note for future in futures for note in future.result()]


def _ending_after(
    entries: Iterator[tuple[TreeEntry, ContentReader | None]], before: Future[list[str]] | None
) -> Iterator[tuple[TreeEntry, ContentReader | None]]:
    """The entries, whose end is held back until the layer before has ended."""
    yield from entries
    if before is not None:
        before.result()


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
