"""The EROFS plane: the kernel serves metadata from an image and data from cached files; we only fetch.

Owns: the lower part of an overlay mount on this plane: one flattened image for the whole chain of layers, and
data-only layers, which overlayfs searches for a file's data in this order: the first directory of links, each
repository's fetch trigger, the second directory of links, and a directory that fails. Must not know: overlay
mounts, Docker.

Repositories are mounted as on the FUSE plane, which also provides a layer's own tree. A chain that an image
cannot represent (or that must be shown differently from how it is stored) is provided by the FUSE plane.

The content of a layer is fixed when its chain is mounted: an image is named by the digests of its catalogs,
so later revisions of a repository change nothing.
"""

import errno
import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.kernel.erofs import write_image
from cvmfs_graphdriver.kernel.errors import KernelError, PathEscapeError
from cvmfs_graphdriver.kernel.mount import FilesystemContext, MountAttribute
from cvmfs_graphdriver.kernel.openat2 import open_beneath
from cvmfs_graphdriver.planes.erofs.flatten import CatalogAt, LayerTree, flatten
from cvmfs_graphdriver.planes.erofs.images import Images, Made
from cvmfs_graphdriver.planes.erofs.links import link_directories
from cvmfs_graphdriver.planes.erofs.trigger import CATALOG_XATTR, DATA, FAIL, FETCH
from cvmfs_graphdriver.planes.errors import PlaneError
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED, load_owner_map
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath, Lower
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError, RepositoryError

__all__ = ["ErofsPlane", "mount_image"]

_log = logging.getLogger(__name__)

_FORM = 2
"""Increase it when the same layers give a different image."""
_TRIES = 3
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class _Described(NamedTuple):
    """The catalog that lists a directory, as described by a repository's server."""

    digest: Digest
    offset: int
    mountpoint: bytes


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer: an open directory, and the catalog that lists it."""

    path: LayerPath
    descriptor: int
    settings: RepositorySettings
    described: _Described


@dataclass(frozen=True, slots=True)
class _Image:
    """A mounted image, and the repositories that it was made from."""

    descriptor: int
    repositories: frozenset[str]


class _UnsuitedError(Exception):
    """A chain cannot be provided as an image."""


class ErofsPlane:
    """Implements ``Plane``. ``fuse`` mounts repositories, with triggers; images are kept in ``directory``."""

    name = "erofs"

    def __init__(self, fuse: FusePlane, directory: Path, why: str = "") -> None:
        self._fuse = fuse
        self._images = Images(directory)
        self.why = why
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._mounted: dict[str, _Image] = {}

    @contextmanager
    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> Iterator[Lower]:
        """One image for all layers, and the layers with its data."""
        with ExitStack() as held:
            part = None
            if bottom:  # an image has no whiteouts for layers below it
                try:
                    part = self._part(layers, held)
                except (KernelError, RepositoryError, _UnsuitedError) as error:
                    _log.warning("using FUSE alone for the layers of %s: %s", layers[0].fqrn, error)
            yield part or held.enter_context(self._fuse.lower(layers, bottom=bottom))

    def foresee(self, layers: Sequence[LayerPath]) -> None:
        """Make the image of these layers."""
        with ExitStack() as held, suppress(KernelError, RepositoryError, _UnsuitedError):
            found = self._layers(layers, held)
            key = _key(found)
            with self._building:
                if self._known(key, held) is None:
                    os.close(self._file(key, found))

    def repository(self, layer: LayerPath) -> Path:
        """As on the FUSE plane."""
        return self._fuse.repository(layer)

    def release(self, fqrn: str) -> None:
        """Unmount a repository and the images made from it; overlay mounts keep working."""
        with self._lock:
            gone = [key for key, image in self._mounted.items() if fqrn in image.repositories]
            for key in gone:
                os.close(self._mounted.pop(key).descriptor)
        self._fuse.release(fqrn)

    def answers(self, fqrn: str) -> bool:
        """Whether a repository is mounted and has a running server, which images made from it need."""
        return self._fuse.answers(fqrn)

    def status(self, problems: Sequence[str] = ()) -> list[tuple[str, str]]:
        """As on the FUSE plane."""
        return self._fuse.status(problems)

    def _part(self, paths: Sequence[LayerPath], held: ExitStack) -> Lower:
        layers = self._layers(paths, held)
        settings = {layer.path.fqrn: layer.settings for layer in layers}
        image = self._image(layers, held)
        caches = {each.cache.directory: None for each in settings.values()}
        links = [link_directories(cache) for cache in caches]
        for pair in links:
            for place in pair:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
        fetch = [self._data(fqrn, FETCH, held) for fqrn in settings]
        fail = self._data(next(iter(settings)), FAIL, held)
        return Lower(
            [image], [*(first for first, _ in links), *fetch, *(second for _, second in links), fail]
        )

    # Layers

    def _layers(self, paths: Sequence[LayerPath], held: ExitStack) -> list[_Layer]:
        settings = {fqrn: self._settings(fqrn) for fqrn in dict.fromkeys(path.fqrn for path in paths)}
        return [self._find(path, settings[path.fqrn], held) for path in paths]

    def _settings(self, fqrn: str) -> RepositorySettings:
        """A repository's configuration. Raises _UnsuitedError: images cannot show what it requires."""
        settings = self._fuse.settings(fqrn)
        shown = settings.presentation
        if shown.world_readable or shown.claim_ownership:
            raise _UnsuitedError(f"the configuration of {fqrn} shows owners or modes that are not stored")
        return settings

    def _find(self, path: LayerPath, settings: RepositorySettings, held: ExitStack) -> _Layer:
        """Open a layer, and ask which catalog lists it."""
        descriptor = self._fuse.open(path)
        held.callback(os.close, descriptor)
        try:
            described = _describe(descriptor)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise PlaneError(f"cannot read the layer {path}: {error.strerror}") from error
            # The repository was mounted by an earlier version, or for the FUSE plane.
            self._fuse.release(path.fqrn)
            descriptor = self._fuse.open(path)
            held.callback(os.close, descriptor)
            described = _describe(descriptor)
        return _Layer(path, descriptor, settings, described)

    def _data(self, fqrn: str, name: bytes, held: ExitStack) -> int:
        """One of the trigger's directories of a mounted repository."""
        top = os.open(self._fuse.mount_point(fqrn), _DIRECTORY)
        try:
            descriptor = open_beneath(top, DATA + b"/" + name, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise PlaneError(f"{fqrn} has no fetch trigger: {error.strerror}") from error
        finally:
            os.close(top)
        held.callback(os.close, descriptor)
        return descriptor

    # Images

    def _image(self, layers: Sequence[_Layer], held: ExitStack) -> int:
        """The mounted image of a chain, made and mounted now if necessary."""
        key = _key(layers)
        known = self._known(key, held)
        if known is not None:
            return known
        with self._building:
            known = self._known(key, held)
            if known is not None:
                return known
            file = self._file(key, layers)
            try:
                mounted = mount_image(file)
            finally:
                os.close(file)
            repositories = frozenset(layer.path.fqrn for layer in layers)
            with self._lock:
                self._mounted[key] = _Image(mounted, repositories)
                return _duplicate(mounted, held)

    def _file(self, key: str, layers: Sequence[_Layer]) -> int:
        """The open file of a chain's image, which is made now if necessary."""
        try:
            return self._images.open(key, lambda notes: _holds(notes, layers), lambda: _make(layers))
        except OSError as error:
            raise _UnsuitedError(f"cannot keep an image of them: {error.strerror}") from error

    def _known(self, key: str, held: ExitStack) -> int | None:
        """A descriptor of an image that is already mounted."""
        with self._lock:
            image = self._mounted.get(key)
            return None if image is None else _duplicate(image.descriptor, held)


def mount_image(file: int) -> int:
    """Mount the EROFS image in an open file, attached nowhere; returns the mount's descriptor.

    Raises MountError.
    """
    with FilesystemContext("erofs") as context:
        context.set_string("source", f"/proc/self/fd/{file}")
        return context.create(MountAttribute.READ_ONLY)


def _duplicate(descriptor: int, held: ExitStack) -> int:
    """A descriptor that is independent of the original."""
    copy = os.dup(descriptor)
    held.callback(os.close, copy)
    return copy


def _key(layers: Sequence[_Layer]) -> str:
    """The name of a chain's image."""
    parts = [
        [
            layer.path.fqrn,
            layer.path.path.hex(),
            layer.described.digest.text,
            *_owners(layer),
        ]
        for layer in layers
    ]
    return hashlib.sha256(json.dumps([_FORM, parts]).encode()).hexdigest()


def _owners(layer: _Layer) -> Iterator[str]:
    """Digests of the owner maps, if there are any. Raises _UnsuitedError: they cannot be read."""
    shown = layer.settings.presentation
    for name, path in (("users", shown.uid_map), ("groups", shown.gid_map)):
        if path is not None:
            try:
                yield f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            except OSError as error:
                raise _UnsuitedError(f"cannot read the id map {path}: {error.strerror}") from error


def _describe(directory: int, below: bytes = b"") -> _Described:
    """Ask the server which catalog lists an open directory, or one below it. Raises OSError."""
    descriptor = open_beneath(directory, below, os.O_RDONLY | os.O_DIRECTORY) if below else directory
    try:
        value = os.getxattr(f"/proc/self/fd/{descriptor}", CATALOG_XATTR)
    finally:
        if below:
            os.close(descriptor)
    digest, offset, mountpoint = value.split(b"\n", 2)
    return _Described(Digest.parse(digest.decode("ascii")), int(offset), mountpoint)


def _holds(notes: bytes, layers: Sequence[_Layer]) -> bool:
    """Whether the inodes in an image are still those of its catalogs.

    They are, unless the inode table has been wiped.
    """
    for number, below, offset in json.loads(notes):
        try:
            described = _describe(layers[number].descriptor, bytes.fromhex(below))
        except (OSError, PathEscapeError):
            return False
        if described.offset != offset:
            return False
    return True


def _make(layers: Sequence[_Layer]) -> Made:
    """Make the image of a chain from its catalogs."""
    notes: list[tuple[int, str, int]] = []
    trees = [_tree(layer, number, notes) for number, layer in enumerate(layers)]
    image = write_image(flatten(trees))
    return Made(image, json.dumps(notes).encode())


def _tree(layer: _Layer, number: int, notes: list[tuple[int, str, int]]) -> LayerTree:
    @contextmanager
    def catalog(path: bytes) -> Iterator[CatalogAt]:
        below = path[len(layer.path.path) + 1 :]
        try:
            described = _describe(layer.descriptor, below) if below else layer.described
        except OSError as error:
            raise PlaneError(f"cannot read {path!r} of {layer.path.fqrn}: {error.strerror}") from error
        notes.append((number, below.hex(), described.offset))
        with closing(_open_catalog(layer, below, described)) as opened:
            yield CatalogAt(described.digest, described.offset, opened)

    shown = layer.settings.presentation
    return LayerTree(
        layer.path.fqrn,
        layer.path.path,
        catalog,
        load_owner_map(shown.uid_map) if shown.uid_map else UNCHANGED,
        load_owner_map(shown.gid_map) if shown.gid_map else UNCHANGED,
    )


def _open_catalog(layer: _Layer, below: bytes, described: _Described) -> Catalog:
    """A catalog from the cache; asking for it brings it there, but it may be evicted at any time."""
    path = layer.settings.cache.directory / ObjectName(described.digest).cache_path
    failure = ""
    for _ in range(_TRIES):
        with suppress(OSError):
            _describe(layer.descriptor, below)
        try:
            return Catalog.open(path, mountpoint=described.mountpoint)
        except (CatalogError, FormatError) as error:
            failure = str(error)
    raise PlaneError(f"cannot read the catalog {described.digest} of {layer.path.fqrn}: {failure}")
