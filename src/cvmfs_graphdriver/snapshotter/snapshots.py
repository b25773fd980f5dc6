"""The snapshots service's operations.

Owns: what each means for records, directories and mounts, so that it is as with containerd's own overlayfs
snapshotter (containerd, ``plugins/snapshots/overlay``), but for layers that a repository has: those are
committed at once, without any content here. The process may be killed anywhere: a record is made last, and
directories without one are removed. Must not know: gRPC.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.planes.foresight import Foresight
from cvmfs_graphdriver.planes.plane import Plane
from cvmfs_graphdriver.snapshotter.administration.meters import Meters, Prepared
from cvmfs_graphdriver.snapshotter.directories import SnapshotDirectories
from cvmfs_graphdriver.snapshotter.errors import SnapshotExistsError, SnapshotStateError, SnapshotterError
from cvmfs_graphdriver.snapshotter.filters import parse_filters
from cvmfs_graphdriver.snapshotter.id_labels import map_options, mapped_root
from cvmfs_graphdriver.snapshotter.lookup import LayerLookup, NotLazy, WantedLayer
from cvmfs_graphdriver.snapshotter.lowers import LayerDirectory, Lowers
from cvmfs_graphdriver.snapshotter.metadata import Metadata
from cvmfs_graphdriver.snapshotter.mount_options import MountOption, bind_mount, overlay_mount
from cvmfs_graphdriver.snapshotter.snapshot import (
    BELOW_LABEL,
    CHAIN_LABEL,
    LAYER_LABEL,
    LazySource,
    Snapshot,
    SnapshotKind,
    chain_of,
    digest_in,
    field_of,
)
from cvmfs_graphdriver.snapshotter.usage import UsageMeter, disk_usage

__all__ = ["Snapshots"]

_log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots below ``root``; safe for any number of threads, but for one process.

    ``remap_ids``: containerd relies on us for user namespaces (capability ``remap-ids``).
    """

    def __init__(
        self, root: Path, plane: Plane, lookup: LayerLookup, meters: Meters, *, remap_ids: bool = False
    ) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._metadata = Metadata(root / "metadata.db")
        self._directories = SnapshotDirectories(root)
        self._lowers = Lowers(root, plane)
        self._foresight = Foresight(plane)
        self._lookup = lookup
        self._meters = meters
        self._meter = UsageMeter()
        self._remap_ids = remap_ids
        self._creating = threading.Lock()

    def close(self) -> None:
        """Close the database. What is mounted stays: containers use it."""
        self._foresight.close()
        self._metadata.close()

    def recover(self) -> None:
        """Make records and directories agree again, after whatever happened to an earlier process."""
        self._lowers.remove_empty()
        for snapshot in reversed(self._metadata.all()):
            if snapshot.source is None and not self._directories.has(snapshot.id):
                _log.error("the directory of snapshot %r is missing", snapshot.key)
                with suppress(SnapshotStateError):  # those above it cannot be mounted
                    self._metadata.remove(snapshot.key)
        self.cleanup()

    # The protocol's operations

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> list[MountOption]:
        """A new writable snapshot.

        Raises SnapshotExistsError also if containerd wants to unpack a layer that a repository has: then the
        layer is there from now on, as a committed snapshot with these labels.
        """
        with self._meters.prepare() as timing:
            found = None
            if CHAIN_LABEL in labels:
                self._metadata.check_new(key, parent)
                found = self._find(parent, labels)
            if isinstance(found, LazySource):
                self._commit_lazy(key, parent, labels, found)
                timing.outcome = Prepared.LAZY
                place = f"{found.layer.fqrn}: {os.fsdecode(found.layer.path)}"
                raise SnapshotExistsError(f"{labels[CHAIN_LABEL]} is in {place}")
            why_not = f"{found.reason}: {found.detail}" if found else ""
            mounts = self._create(SnapshotKind.ACTIVE, key, parent, labels, why_not)
            timing.outcome = Prepared.PULLED if found else Prepared.CONTAINER
            return mounts

    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> list[MountOption]:
        """A new read-only snapshot."""
        return self._create(SnapshotKind.VIEW, key, parent, labels)

    def mounts(self, key: str) -> list[MountOption]:
        """The mounts of an active snapshot or view; what they need is mounted again if necessary."""
        snapshot, *below = self._metadata.ancestry(key)
        if snapshot.kind is SnapshotKind.COMMITTED:
            raise SnapshotStateError(
                f"snapshot {key!r} is committed, so it is not mounted: prepare one above it"
            )
        with self._lowers.held(self._layers(below)) as lower:
            return [self._mount(snapshot, lower)]

    def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Turn an active snapshot into a committed one.

        Containerd waits for this within a transaction of its database: it does nothing else.
        """
        self._metadata.commit(key, name, labels)

    def remove(self, key: str) -> None:
        """Forget a snapshot; ``cleanup`` frees what it takes."""
        self._metadata.remove(key)

    def stat(self, key: str) -> Snapshot:
        """What is known of a snapshot."""
        return self._metadata.get(key)

    def update(self, key: str, labels: Mapping[str, str], fields: Sequence[str]) -> Snapshot:
        """Change a snapshot's labels."""
        return self._metadata.update(key, labels, fields)

    def select(self, filters: Sequence[str]) -> list[Snapshot]:
        """The snapshots that one of the filters matches."""
        matches = parse_filters(filters)

        def fields(snapshot: Snapshot) -> Callable[[Sequence[str]], str | None]:
            return lambda path: field_of(snapshot, path)

        return [each for each in self._metadata.all() if matches(fields(each))]

    def usage(self, key: str) -> tuple[int, int]:
        """Bytes and inodes that a snapshot takes on this disk, without those below it."""
        snapshot = self._metadata.get(key)
        if snapshot.usage is not None:
            return snapshot.usage
        files = self._directories.files(snapshot.id)
        try:
            if snapshot.kind is not SnapshotKind.COMMITTED:
                return self._meter.of(files) if snapshot.kind is SnapshotKind.ACTIVE else (0, 0)
            size, inodes = disk_usage(files)
        except OSError as error:
            raise SnapshotterError(f"cannot count the files of snapshot {key!r}: {error}") from error
        self._metadata.set_usage(snapshot.id, size, inodes)
        return size, inodes

    def cleanup(self) -> None:
        """Free what belongs to no snapshot."""
        with self._creating:
            gone = self._directories.remove_others(snapshot.id for snapshot in self._metadata.all())
        self._directories.free(gone)
        self._lowers.keep_only(self._metadata.in_use)

    # How

    def _find(self, parent: str, labels: Mapping[str, str]) -> LazySource | NotLazy:
        """Look for the layer that containerd wants to unpack."""
        wanted = self._wanted(parent, labels)
        found = self._lookup.find(wanted) if isinstance(wanted, WantedLayer) else wanted
        if isinstance(found, NotLazy):
            _log.info("%s is not lazy: %s", labels[CHAIN_LABEL], found.detail)
        self._meters.looked_up(found)
        return found

    def _commit_lazy(self, key: str, parent: str, labels: Mapping[str, str], source: LazySource) -> None:
        with self._metadata.transaction():
            if self._metadata.lazy_child(parent, labels[CHAIN_LABEL]) is None:
                self._metadata.create(SnapshotKind.COMMITTED, key, parent, labels, source=source)
            below = [each.source for each in self._metadata.ancestry(parent)] if parent else []
        if all(below):
            self._foresight.expect([each.layer for each in (source, *below) if each])

    def _wanted(self, parent: str, labels: Mapping[str, str]) -> WantedLayer | NotLazy:
        """The keys by which a layer can be found."""
        chain = digest_in(labels[CHAIN_LABEL])
        if chain is None:
            return NotLazy("malformed", f"the label {CHAIN_LABEL} is not a digest")
        layer = digest_in(labels.get(LAYER_LABEL, ""))
        if not parent:
            return WantedLayer(chain, None, layer)
        below = chain_of(self._metadata.get(parent)) or digest_in(labels.get(BELOW_LABEL, ""))
        return WantedLayer(chain if below else None, below, layer)

    def _create(
        self, kind: SnapshotKind, key: str, parent: str, labels: Mapping[str, str], why_not: str = ""
    ) -> list[MountOption]:
        self._metadata.check_new(key, parent)
        root = mapped_root(labels)
        below = self._metadata.ancestry(parent) if parent else []
        if self._remap_ids and root and any(each.source for each in below):
            raise SnapshotStateError(
                f"{parent!r} is lazy, and lazy layers cannot be used in a user namespace: pull the image "
                "with containerd's overlayfs snapshotter"
            )
        with self._lowers.held(self._layers(below)) as lower:
            owner = root or (_owner(lower[0]) if lower else (os.geteuid(), os.getegid()))
            with self._creating, self._metadata.transaction():
                snapshot = self._metadata.create(kind, key, parent, labels, why_not=why_not)
                self._directories.create(snapshot.id, owner, writable=kind is SnapshotKind.ACTIVE)
            return [self._mount(snapshot, lower)]

    def _layers(self, ancestry: Sequence[Snapshot]) -> list[LayerDirectory]:
        return [
            LayerDirectory(each.id, each.source.layer if each.source else self._directories.files(each.id))
            for each in ancestry
        ]

    def _mount(self, snapshot: Snapshot, lower: Sequence[Path]) -> MountOption:
        files = self._directories.files(snapshot.id)
        extra = map_options(snapshot.labels) if self._remap_ids else []
        # Containerd maps the ids of the directory common to all lower ones, and short names lead out of it.
        shorten = _unchanged if extra else self._directories.shorten
        if snapshot.kind is SnapshotKind.VIEW:
            if len(lower) > 1:
                return overlay_mount(lower, shorten, extra=extra)
            return bind_mount(lower[0] if lower else files, writable=False, extra=extra)
        if not lower:
            return bind_mount(files, writable=True, extra=extra)
        work = self._directories.work(snapshot.id)
        return overlay_mount(lower, shorten, upper=files, work=work, extra=extra)


def _unchanged(directory: Path) -> Path:
    return directory


def _owner(directory: Path) -> tuple[int, int]:
    try:
        status = os.stat(directory)
    except OSError as error:
        raise SnapshotterError(f"cannot read {directory}: {error.strerror}") from error
    return status.st_uid, status.st_gid
