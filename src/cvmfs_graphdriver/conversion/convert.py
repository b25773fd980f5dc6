"""Converting images: what the repository lacks of layers and records, in one transaction; their thin.json.

Owns: which layers are needed, the order of steps, and the statistics. Nothing of an image becomes visible
unless all of it has been fetched, verified and stored; an image that fails is left out of the transaction as
if it had never been requested. Must not know: how the image's source, the repository's storage or a progress
bar work.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.conversion.chains import needed_records, write_records
from cvmfs_graphdriver.conversion.errors import AlreadyThinError, HaltedError
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.conversion.places import is_there, require_way
from cvmfs_graphdriver.conversion.progress import CountingSource, Progress
from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.image.chain import ChainRecord
from cvmfs_graphdriver.oci.image.model import Image, ImageLayer
from cvmfs_graphdriver.oci.image.source import ImageSource
from cvmfs_graphdriver.oci.image.thin import THIN_FILE, LayerLocation, ThinImage, ThinLayer
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.ingest.staged_tree import StagedTree
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["Conversion", "Intake", "convert", "describe", "distinct_layers"]

_MAX_THIN_LAYER = 2 << 20
_PARALLEL = 3
"""Layers fetched at once: enough to hide a registry's latency; fewer keep the cores busy."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did: ``new`` layers were fetched and stored, ``shared`` ones were already there."""

    thin: ThinImage
    new: tuple[ImageLayer, ...]
    shared: tuple[ImageLayer, ...]
    revision: int
    """The repository's revision in which all layers are."""
    stored_bytes: int = 0
    """Compressed size of the new files, without catalogs."""
    known_objects: int = 0
    """Files and chunks of files that were already stored."""
    chain_records: int = 0
    """New records of chains, by which nodes find the layers of the unmodified image."""
    notes: tuple[str, ...] = field(default=())
    """What could not be preserved, a line each."""


def distinct_layers(image: Image) -> list[ImageLayer]:
    """The layers of an image, base first, without repetitions.

    Of a layer that occurs more than once, the topmost is kept: it hides the others, so they make no
    difference, and no directory can be stacked twice.
    """
    topmost: dict[str, ImageLayer] = {}
    for layer in reversed(image.layers):
        topmost.setdefault(str(layer.descriptor.digest), layer)
    return list(reversed(topmost.values()))


def describe(image: Image, repository: str, layout: LayerLayout) -> ThinImage:
    """The thin.json of an image whose layers are, or will be, in ``repository``.

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
    """Publish the layers of an image in a repository, as one revision.

    Raises AlreadyThinError, LayerPlaceError, and whatever the source, the layers and the publisher raise; the
    repository is then unchanged.
    """
    with Intake(repository, layout, progress) as intake:
        conversion = intake.add(source, image)
        intake.publish()
    return conversion


class Intake:
    """Collects images for one revision; holds the repository's lock within its ``with`` block."""

    def __init__(self, repository: Repository, layout: LayerLayout, progress: Progress) -> None:
        self._repository = repository
        self._layout = layout
        self._progress = progress
        self._transaction = Transaction(repository)
        self._changed = False
        self.layers = 0
        """Layers that are new in this revision."""
        self.broken = False
        """Whether an image failed so late that the revision can no longer be published."""

    def __enter__(self) -> Self:
        self._transaction.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, trace)

    def add(self, source: ImageSource, image: Image) -> Conversion:
        """Add an image; for one thread. The result holds once the revision is published.

        Raises AlreadyThinError, LayerPlaceError, and whatever the source, the layers and the publisher raise;
        the revision is then as if this image had not been added, or ``broken``.
        """
        transaction, layout = self._transaction, self._layout
        thin = describe(image, self._repository.fqrn, layout)
        layers = distinct_layers(image)
        _refuse_thin(source, image.name, layers)
        before = transaction.objects.mark()
        missing = [
            layer for layer in layers if not is_there(transaction, layout.directory(layer.descriptor.digest))
        ]
        records = _changed_records(transaction, image, layout)
        chains, problems = self._chains(image)
        staged, notes = self._stage(source, missing)
        notes += problems
        after = transaction.objects.mark()
        try:
            _make_catalogs(transaction, missing, layout)
            for tree in staged:
                transaction.mount(tree)
                notes += tree.notes
            for path, data in records.items():
                transaction.write_file(path, data)
            write_records(transaction, chains)
        except BaseException:
            self.broken = True
            for tree in staged:
                tree.abandon()
            raise
        self._changed = self._changed or bool(missing or records or chains)
        self.layers += len(missing)
        return Conversion(
            thin=thin,
            new=tuple(missing),
            shared=tuple(layer for layer in layers if layer not in missing),
            revision=transaction.base.revision + self._changed,
            stored_bytes=after.bytes_new - before.bytes_new,
            known_objects=after.objects_known - before.objects_known,
            chain_records=len(chains),
            notes=tuple(notes),
        )

    def publish(self) -> None:
        """Publish the revision if anything changed. Raises whatever the publisher raises."""
        if self._changed:
            self._transaction.publish()

    def _chains(self, image: Image) -> tuple[dict[bytes, ChainRecord], list[str]]:
        """The records of chains that the image needs; or why it cannot have any."""
        try:
            return needed_records(self._transaction, image.layers, self._layout.directory), []
        except ThinImageFormatError as error:
            return {}, [f"the unmodified image cannot start lazily: {error}"]

    def _stage(self, source: ImageSource, layers: Sequence[ImageLayer]) -> tuple[list[StagedTree], list[str]]:
        """Store the layers, several at a time; also returns what could not be preserved.

        If one fails, nothing of the others remains.
        """
        self._progress.begin(source.name, layers)
        halt = threading.Event()
        before = self._transaction.objects.mark()

        def take(layer: ImageLayer) -> tuple[StagedTree, list[str]]:
            try:
                return self._stage_layer(source, layer, halt)
            except BaseException:
                halt.set()
                raise

        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="layer") as pool:
            try:
                futures = [pool.submit(take, layer) for layer in layers]
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                halt.set()
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        if not errors:
            taken = [future.result() for future in futures]
            return [tree for tree, _ in taken], [note for _, notes in taken for note in notes]
        for future in futures:
            if future.exception() is None:
                future.result()[0].abandon()
        self._transaction.objects.discard(before)
        raise next((error for error in errors if not isinstance(error, HaltedError)), errors[0])

    def _stage_layer(
        self, source: ImageSource, layer: ImageLayer, halt: threading.Event
    ) -> tuple[StagedTree, list[str]]:
        digest = layer.descriptor.digest
        notes: list[str] = []
        with source.blob(layer.descriptor) as blob:
            counted = CountingSource(blob, layer, self._progress, halt)
            stream = LayerStream(f"layer {digest} of {source.name}", counted, layer.diff_id)
            tree = self._transaction.stage(self._layout.directory(digest), tree_entries(stream, notes))
        self._progress.finish(layer)
        return tree, notes


def _changed_records(transaction: Transaction, image: Image, layout: LayerLayout) -> dict[bytes, bytes]:
    """The layout's records for an image that are missing from the repository or outdated."""
    records = {
        path: data
        for path, data in layout.records(image, transaction.read_file)
        if transaction.read_file(path) != data
    }
    for path in records:
        require_way(transaction, path)
    return records


def _make_catalogs(transaction: Transaction, layers: Sequence[ImageLayer], layout: LayerLayout) -> None:
    """Give new directories above the layers catalogs of their own."""
    for layer in layers:
        for path in layout.catalogs(layer.descriptor.digest):
            transaction.make_catalog(path)


def _refuse_thin(source: ImageSource, name: str, layers: Sequence[ImageLayer]) -> None:
    """Raise AlreadyThinError for a thin image: converting it again would bury its thin.json in a layer."""
    if len(layers) != 1 or layers[0].descriptor.size > _MAX_THIN_LAYER:
        return
    with source.blob(layers[0].descriptor) as blob:
        paths = [entry.path for entry in LayerStream(f"the layer of {name}", blob, layers[0].diff_id)]
    if paths == [b"/" + THIN_FILE]:
        raise AlreadyThinError(f"image {name} is already a thin image: there is nothing to convert")
