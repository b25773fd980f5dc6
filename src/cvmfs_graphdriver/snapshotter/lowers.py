"""Directories that stand for lazy layers, so that whoever mounts an overlay can name them in ``lowerdir=``.

Owns: mounts of ours below the snapshotter's state directory,

    <root>/lower/<id>.<devices>   one layer: its directory in the mounted repository (FUSE plane)
    <root>/merged/<id>.<devices>  the layer and all below it, merged in a read-only overlay (EROFS plane)

where ``<devices>`` are the numbers of the repositories' file systems: if one had to be mounted again, what
stands on the old one is not used any more. A path is mounted or does not exist, so that nobody takes an empty
directory for a layer. The layer's path comes from a repository: it is opened beneath the mount, following no
link, and mounted by descriptor, so it leads nowhere else later. Why in this form: ADR 0025. Must not know:
containerd.
"""

import errno
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from pathlib import Path

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import MountAttribute, UmountFlag, clone_tree, move_mount, umount
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.layers.locks import NamedLocks
from cvmfs_graphdriver.planes.plane import LayerPath, Lower, Plane

__all__ = ["LayerDirectory", "Lowers"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LayerDirectory:
    """A layer of a stack: the snapshot's id, and its directory on this disk or its place in a repository."""

    id: int
    place: Path | LayerPath


class Lowers:
    """The mounts below ``root`` for layers that ``plane`` provides; safe for any number of threads."""

    def __init__(self, root: Path, plane: Plane) -> None:
        self._plane = plane
        self._single = root / "lower"
        self._merged = root / "merged"
        for directory in (self._single, self._merged):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._held: Counter[int] = Counter()
        self._names = NamedLocks()

    @contextmanager
    def held(self, layers: Sequence[LayerDirectory]) -> Iterator[list[Path]]:
        """Lower directories for these layers, topmost first, which stay at least until the block ends.

        Raises PlaneError, KernelError: a layer cannot be had.
        """
        ids = [layer.id for layer in layers if isinstance(layer.place, LayerPath)]
        with self._lock:
            self._held.update(ids)
        try:
            yield list(self._directories(layers))
        finally:
            with self._lock:
                self._held.subtract(ids)
                self._held += Counter()  # forget zeros

    def keep_only(self, used: Callable[[], set[int]]) -> None:
        """Unmount what stands for no layer that is in use or held now."""
        with self._lock:
            kept = set(self._held) | used()
            for directory in (self._single, self._merged):
                for name in os.listdir(directory):
                    if int(name.partition(".")[0]) not in kept:
                        _unmount(directory / name)

    def remove_empty(self) -> None:
        """Remove mount points on which nothing is mounted, as after a reboot."""
        for directory in (self._single, self._merged):
            for name in os.listdir(directory):
                with suppress(OSError):  # a mount point is busy
                    (directory / name).rmdir()

    def _directories(self, layers: Sequence[LayerDirectory]) -> Iterator[Path]:
        # The same layer may occur twice: the topmost hides the others, and overlayfs refuses duplicates.
        topmost: dict[Path | LayerPath, LayerDirectory] = {}
        for layer in layers:
            topmost.setdefault(layer.place, layer)
        once = list(topmost.values())
        for lazy, group in groupby(once, key=lambda layer: isinstance(layer.place, LayerPath)):
            run = list(group)
            if lazy:
                yield from self._run(run, bottom=run[-1] is once[-1])
            else:
                yield from (layer.place for layer in run if isinstance(layer.place, Path))

    def _run(self, run: Sequence[LayerDirectory], *, bottom: bool) -> list[Path]:
        """Directories for lazy layers one above the other; ``bottom`` if there is nothing below them."""
        paths = [layer.place for layer in run if isinstance(layer.place, LayerPath)]
        devices = [self._device(fqrn) for fqrn in dict.fromkeys(path.fqrn for path in paths)]
        ids = {path: layer.id for path, layer in zip(paths, run, strict=True)}

        def name(path: LayerPath) -> str:
            return ".".join(map(str, (ids[path], *devices)))

        merged = self._merged / name(paths[0])
        with self._names.hold(str(merged)):
            if bottom and _is_mounted(merged):
                return [merged]
            with self._plane.lower(paths, bottom=bottom) as lower:
                if lower.data:
                    _mount_at(merged, lambda: _merge(lower, merged))
                    return [merged]
                # There are fewer if the root of one is opaque; the plane may add a directory of its own.
                names = chain(map(name, paths), repeat(""))
                return [
                    self._stand(self._single / known, part) if isinstance(part, int) else Path(part)
                    for known, part in zip(names, lower.layers, strict=False)
                ]

    def _stand(self, place: Path, descriptor: int) -> Path:
        with self._names.hold(str(place)):
            if not _is_mounted(place):
                _mount_at(place, lambda: _bind(descriptor, place))
        return place

    def _device(self, fqrn: str) -> int:
        """The number of a repository's file system, which is mounted now if necessary."""
        return os.stat(self._plane.repository(LayerPath(fqrn, b"/"))).st_dev


def _merge(lower: Lower, target: Path) -> None:
    mount_overlay(
        lower.layers, target, data=lower.data, options=lower.options, attributes=MountAttribute.READ_ONLY
    )


def _bind(descriptor: int, target: Path) -> None:
    copy = clone_tree(b"", directory=descriptor)
    try:
        move_mount(copy, target)
    finally:
        os.close(copy)


def _mount_at(place: Path, mount: Callable[[], None]) -> None:
    """Mount something at a new mount point, which does not remain if that fails."""
    place.mkdir(mode=0o700, exist_ok=True)
    try:
        mount()
    except BaseException:
        place.rmdir()
        raise


def _is_mounted(place: Path) -> bool:
    try:
        return os.stat(place).st_dev != os.stat(place.parent).st_dev
    except FileNotFoundError:
        return False


def _unmount(place: Path) -> None:
    try:
        umount(place, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
    except MountError as error:
        if error.errno != errno.EINVAL:  # not mounted
            _log.warning("%s", error)
    try:
        place.rmdir()
    except OSError as error:
        _log.warning("cannot remove the mount point %s: %s", place, error.strerror)
