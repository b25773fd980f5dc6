"""Mounts of layers: one overlay mount per layer, however many users it has.

Owns: how often each layer is in use, what its mount consists of, which repositories it uses, when an unused
repository is released, and what happens to the mounts of an earlier process. Must not know: protocols; how a
repository is mounted.

A mount point exists only while something is mounted there: removing the directory also ends the mount in all
other mount namespaces, where it could otherwise keep the layer busy.
"""

import errno
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.kernel.overlay import mount_overlay, plain_options
from cvmfs_graphdriver.kernel.waiting.deadline import within
from cvmfs_graphdriver.layers.chain import LayerSource, sources_above, sources_of
from cvmfs_graphdriver.layers.directories import Part
from cvmfs_graphdriver.layers.locks import NamedLocks
from cvmfs_graphdriver.layers.merged import Merged
from cvmfs_graphdriver.layers.store import LayerStore, StoredLayer
from cvmfs_graphdriver.planes.plane import LayerPath, Plane

__all__ = ["IDLE", "LayerMounts"]

_log = logging.getLogger(__name__)

IDLE = 300.0
"""Seconds that an unused repository remains mounted, so that the next container starts quickly."""

_PATIENCE = 10.0
"""Seconds that an adopted mount may take to answer, since Docker waits for its driver to start."""


@dataclass(slots=True)
class _Mounted:
    """A mounted layer: its number of users, its mount point, and the repositories it uses."""

    uses: int
    path: Path
    repositories: frozenset[str] = frozenset()


class LayerMounts:
    """The mounts of one store's layers; thread-safe."""

    def __init__(self, store: LayerStore, plane: Plane, *, idle: float = IDLE) -> None:
        self._store = store
        self._plane = plane
        self._idle = idle
        self._layers = NamedLocks()
        self._lock = threading.Lock()
        self._mounted: dict[str, _Mounted] = {}
        self._releases: dict[str, threading.Timer] = {}

    def adopt(self) -> None:
        """Take over the mounts of an earlier process; those that are dead or of no layer are unmounted.

        An adopted mount counts as one use that nobody has requested, as in Docker.
        """
        answers = cache(self._plane.answers)  # one that is silent is waited for only once
        for mount in mounts_below(self._store.home):
            path = Path(os.fsdecode(mount.mount_point))
            if path.name != "merged" or path.parent.parent != self._store.home:
                continue
            identity = path.parent.name
            known = self._store.exists(identity)
            repositories = _repositories(sources_above(self._store.ancestry(identity)) if known else ())
            if known and all(map(answers, repositories)) and _is_alive(path):
                self._mounted[identity] = _Mounted(1, path, repositories)
            else:
                _log.info("unmounting %s, left by an earlier process", path)
                _unmount(path)

    def get(self, identity: str, label: str = "") -> Path:
        """The directory that shows the layer merged with those below it; to be released with ``put``.

        A complete layer is mounted read-only. ``label`` is the SELinux label of its files.
        Raises LayerError, PlaneError, KernelError.
        """
        with self._layers.hold(identity):
            known = self._mounted.get(identity)
            if known is None:
                known = self._mount(self._store.ancestry(identity), label)
                with self._lock:
                    self._mounted[identity] = known
            known.uses += 1
            return known.path

    def put(self, identity: str) -> None:
        """Release what ``get`` returned; the last release unmounts it. Raises KernelError."""
        with self._layers.hold(identity):
            known = self._mounted.get(identity)
            if known is not None:
                known.uses -= 1
                if known.uses <= 0:
                    self._end(identity, known)

    def drop(self, identity: str) -> None:
        """Unmount a layer even if it is in use, since it is about to be removed."""
        with self._layers.hold(identity):
            known = self._mounted.get(identity)
            if known is not None:
                self._end(identity, known)

    def drop_all(self) -> None:
        """Unmount everything below the store."""
        for identity in list(self._mounted):
            self.drop(identity)
        with self._lock:
            for timer in self._releases.values():
                timer.cancel()
            self._releases.clear()
        for mount in reversed(mounts_below(self._store.home)):
            umount(mount.mount_point, UmountFlag.DETACH | UmountFlag.NOFOLLOW)

    def view(self, identity: str) -> Merged:
        """The layer merged with those below it, without mounting it."""
        ancestry = self._store.ancestry(identity)
        return self._merged([LayerSource(directory=ancestry[0].diff), *sources_above(ancestry[1:])])

    def view_below(self, identity: str | None) -> Merged:
        """The same for what a child of the layer has below it."""
        return self._merged(sources_above(self._store.ancestry(identity))) if identity else Merged()

    def _merged(self, sources: Sequence[LayerSource]) -> Merged:
        try:
            return Merged(self._part(source) for source in sources)
        finally:
            self._release_later(_repositories(sources))

    def _part(self, source: LayerSource) -> Part:
        if source.directory is not None:
            return Part(os.fsencode(source.directory))
        layer = _layer_path(source)
        return Part(os.fsencode(self._plane.repository(layer)), layer.path.strip(b"/"))

    def _mount(self, ancestry: Sequence[StoredLayer], label: str) -> _Mounted:
        layer = ancestry[0]
        complete = layer.is_complete
        sources = sources_of(ancestry) if complete else sources_above(ancestry[1:])
        if len(ancestry) == 1 and layer.thin is None:
            return _Mounted(0, layer.diff)
        options: dict[str, str | None] = {"context": label} if label else {}
        lower: list[Path | int] = []
        data: list[Path | int] = []
        with ExitStack() as held:
            for local, group in groupby(sources, key=lambda source: source.directory is not None):
                run = list(group)
                if local:
                    lower += [source.directory for source in run if source.directory is not None]
                    continue
                paths = [_layer_path(source) for source in run]
                part = held.enter_context(self._plane.lower(paths, bottom=run[-1] is sources[-1]))
                lower += part.layers
                data += part.data
                options |= part.options
            if not data:  # whatever the kernel's defaults, the upper directory must contain all changes
                options |= plain_options()
            upper, work = (None, None) if complete else (layer.diff, layer.work)
            layer.merged.mkdir(mode=0o700, exist_ok=True)
            try:
                mount_overlay(lower, layer.merged, upper=upper, work=work, data=data, options=options)
            except BaseException:
                layer.merged.rmdir()
                raise
        return _Mounted(0, layer.merged, _repositories(sources))

    def _end(self, identity: str, known: _Mounted) -> None:
        if known.path.name == "merged":
            _unmount(known.path)
        with self._lock:
            del self._mounted[identity]
        self._release_later(known.repositories)

    def _release_later(self, names: Iterable[str]) -> None:
        """Release repositories after a while, unless a layer uses them by then."""
        with self._lock:
            for name in names:
                if name in self._releases:
                    self._releases[name].cancel()
                timer = self._releases[name] = threading.Timer(self._idle, self._release_if_unused, (name,))
                timer.daemon = True
                timer.start()

    def _release_if_unused(self, name: str) -> None:
        with self._lock:
            self._releases.pop(name, None)
            used = any(name in mounted.repositories for mounted in self._mounted.values())
        if not used:
            self._plane.release(name)


def _is_alive(path: Path) -> bool:
    """Whether all repositories in a mount still have their servers.

    To look up a name that does not exist, the kernel must ask every layer.
    """
    try:
        within(_PATIENCE, lambda: os.lstat(path / f".{secrets.token_hex(16)}"))
    except TimeoutError:
        return False
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True


def _unmount(path: Path) -> None:
    """Unmount a layer and remove its mount point."""
    try:
        umount(path, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
        path.rmdir()
    except MountError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        _log.info("%s was unmounted by another process", path)
    except OSError as error:
        _log.warning("cannot remove the mount point %s: %s", path, error.strerror)


def _layer_path(source: LayerSource) -> LayerPath:
    location = source.location
    if location is None:
        raise TypeError("the source is not in a repository")
    return LayerPath(location.repository, location.path)


def _repositories(sources: Sequence[LayerSource]) -> frozenset[str]:
    return frozenset(source.location.repository for source in sources if source.location)
