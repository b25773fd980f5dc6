"""Layers as they are mounted: one overlay mount per layer, however many ask for it.

Owns: how often each layer is in use, what its mount consists of, which repositories are in use for it and
when one that no layer needs is let go, and what becomes of mounts that an earlier process left. Must not
know: protocols; how a repository is mounted.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.layers.chain import Source, sources_above, sources_of
from cvmfs_graphdriver.layers.store import Layer, LayerStore
from cvmfs_graphdriver.planes.plane import LayerPath, Plane

__all__ = ["LayerMounts"]

_IDLE = 300.0
"""Seconds that a repository stays mounted after its last layer: the next container starts at once."""


@dataclass(slots=True)
class _Mounted:
    """A mounted layer: how many use it, and what must be let go of in the end."""

    uses: int
    path: Path
    repositories: frozenset[str] = frozenset()


class LayerMounts:
    """The mounts of one store's layers; safe for any number of threads."""

    def __init__(self, store: LayerStore, plane: Plane, *, idle: float = _IDLE) -> None:
        self._store = store
        self._plane = plane
        self._idle = idle
        self._lock = threading.RLock()
        self._mounted: dict[str, _Mounted] = {}

    def adopt(self) -> None:
        """Take over what an earlier process left mounted: nobody is counted for it yet."""
        for mount in mounts_below(self._store.home):
            path = Path(os.fsdecode(mount.mount_point))
            if path.name == "merged" and path.parent.parent == self._store.home:
                layer = path.parent.name
                if self._store.exists(layer):
                    repositories = _repositories(sources_above(self._store.ancestry(layer)))
                    self._mounted[layer] = _Mounted(0, path, repositories)

    def get(self, identity: str, label: str = "") -> Path:
        """The directory where the layer with all below it can be seen; ``put`` gives it back.

        A layer that is complete is mounted for reading. ``label`` is the SELinux label of what is in it.
        Raises LayerError, PlaneError, KernelError.
        """
        with self._lock:
            known = self._mounted.get(identity)
            if known is not None:
                known.uses += 1
                return known.path
            ancestry = self._store.ancestry(identity)
            mounted = self._mounted[identity] = self._mount(ancestry, label)
            mounted.uses = 1
            return mounted.path

    def put(self, identity: str) -> None:
        """Give back what ``get`` gave; the last one unmounts it. Raises KernelError."""
        with self._lock:
            known = self._mounted.get(identity)
            if known is None:
                return
            known.uses -= 1
            if known.uses <= 0:
                self._unmount(identity)

    def drop(self, identity: str) -> None:
        """Unmount a layer whoever uses it, since it is going to be removed."""
        with self._lock:
            if identity in self._mounted:
                self._unmount(identity)

    def drop_all(self) -> None:
        """Unmount everything below the store."""
        with self._lock:
            for identity in list(self._mounted):
                for name in self._unmount(identity):
                    self._plane.release(name)

    def below(self, identity: str) -> list[Path]:
        """The directories below a layer, topmost first, to compare it with."""
        parent = self._store.get(identity).parent
        if parent is None:
            return []
        return [self._directory(source) for source in sources_above(self._store.ancestry(parent))]

    def _directory(self, source: Source) -> Path:
        return source.directory or self._plane.directory(_layer_path(source))

    def _mount(self, ancestry: Sequence[Layer], label: str) -> _Mounted:
        layer = ancestry[0]
        complete = layer.is_applied
        sources = sources_of(ancestry) if complete else sources_above(ancestry[1:])
        if len(ancestry) == 1 and layer.thin is None:
            return _Mounted(0, layer.diff)
        options: dict[str, str | None] = {"context": label} if label else {}
        lower: list[Path | int] = []
        data: list[Path | int] = []
        with ExitStack() as held:
            for local, run in groupby(sources, key=lambda source: source.directory is not None):
                if local:
                    lower += [self._directory(source) for source in run]
                    continue
                part = held.enter_context(self._plane.lower([_layer_path(source) for source in run]))
                lower += part.layers
                data += part.data
                options |= part.options
            if complete and len(lower) == 1 and isinstance(lower[0], Path):
                return _Mounted(0, lower[0])
            upper, work = (None, None) if complete else (layer.diff, layer.work)
            mount_overlay(lower, layer.merged, upper=upper, work=work, data=data, options=options)
        return _Mounted(0, layer.merged, _repositories(sources))

    def _unmount(self, identity: str) -> frozenset[str]:
        """Unmount a layer; returns the repositories that no layer uses any more, which will be released."""
        mounted = self._mounted[identity]
        if mounted.path.name == "merged":
            umount(mounted.path, UmountFlag.DETACH)
        del self._mounted[identity]
        unused = mounted.repositories - self._in_use()
        for name in unused:
            timer = threading.Timer(self._idle, self._release_if_unused, (name,))
            timer.daemon = True
            timer.start()
        return unused

    def _in_use(self) -> set[str]:
        return {name for mounted in self._mounted.values() for name in mounted.repositories}

    def _release_if_unused(self, name: str) -> None:
        with self._lock:
            if name not in self._in_use():
                self._plane.release(name)


def _layer_path(source: Source) -> LayerPath:
    location = source.location
    if location is None:
        raise TypeError("a source is a directory or a location")
    return LayerPath(location.repository, location.path)


def _repositories(sources: Sequence[Source]) -> frozenset[str]:
    return frozenset(source.location.repository for source in sources if source.location)
