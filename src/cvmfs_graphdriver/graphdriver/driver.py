"""Docker's graph driver, call by call.

Owns: what each call of the protocol means for layers and their mounts (Docker's "Graph driver plugins" and
the behaviour of overlay2). Docker sends Init only once, so its arguments are kept beside the layers and read
again when the driver is restarted. Must not know: HTTP.
"""

import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.graphdriver.boot_wait import BOOT_WAIT, BootWait
from cvmfs_graphdriver.graphdriver.errors import NotInitialisedError, RequestError
from cvmfs_graphdriver.graphdriver.host import Backing, check_host
from cvmfs_graphdriver.graphdriver.init_layers import is_init_layer, orphaned_init_layers
from cvmfs_graphdriver.graphdriver.journal import Journal
from cvmfs_graphdriver.graphdriver.layer_upload import LayerUploader
from cvmfs_graphdriver.graphdriver.options import DriverOptions
from cvmfs_graphdriver.graphdriver.sizes import SizeLimits
from cvmfs_graphdriver.graphdriver.wire import Call, Reply, Streamed
from cvmfs_graphdriver.kernel.whole_file import write_whole_file
from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.chain import sources_above
from cvmfs_graphdriver.layers.changes import changes, size_of
from cvmfs_graphdriver.layers.diff import write_diff
from cvmfs_graphdriver.layers.errors import LayerStateError
from cvmfs_graphdriver.layers.idmap import IdMap, IdRange, Owners
from cvmfs_graphdriver.layers.mounts import IDLE, LayerMounts
from cvmfs_graphdriver.layers.store import LayerStore, StoredLayer, check_identity
from cvmfs_graphdriver.oci.image.thin import LayerLocation, ThinImage, ThinLayer
from cvmfs_graphdriver.oci.image.thin_image import thin_layer
from cvmfs_graphdriver.planes.plane import LayerPath, Plane

__all__ = ["GraphDriver"]

_log = logging.getLogger(__name__)
_KEPT = ".init.json"
_JOURNAL = ".unanswered"


@dataclass(frozen=True, slots=True)
class _Ready:
    """Everything that exists after Init."""

    options: DriverOptions
    backing: Backing
    sizes: SizeLimits
    owners: Owners
    store: LayerStore
    mounts: LayerMounts
    plane: Plane


class GraphDriver:
    """The driver below ``base``, the plugin's propagated mount.

    ``make_plane`` takes the driver's home and the owners of containers' files on this disk. ``uploader``
    publishes containers' layers. An unused repository is unmounted after ``idle`` seconds. Soon after the
    start, Get waits for repositories, ``boot_wait`` seconds in all. ``problems`` are shown by ``docker
    info``.
    """

    def __init__(
        self,
        base: Path,
        make_plane: Callable[[Path, Owners], Plane],
        uploader: LayerUploader,
        *,
        idle: float = IDLE,
        boot_wait: float = BOOT_WAIT,
        problems: Sequence[str] = (),
    ) -> None:
        self._idle = idle
        self._boot = BootWait(boot_wait)
        self._problems = tuple(problems)
        self._base = base
        self._uploader = uploader
        self._make_plane = make_plane
        self._ready: _Ready | None = None
        self._new: set[str] = set()
        self._journal = Journal(base / _JOURNAL)
        self._calls: dict[str, Callable[[Call], Reply | Streamed]] = {
            "Plugin.Activate": lambda _: {"Implements": ["GraphDriver"]},
            "GraphDriver.Init": self._init,
            "GraphDriver.Create": self._create,
            "GraphDriver.CreateReadWrite": self._create,
            "GraphDriver.Remove": self._remove,
            "GraphDriver.Get": self._get,
            "GraphDriver.Put": self._put,
            "GraphDriver.Exists": self._exists,
            "GraphDriver.Status": self._status,
            "GraphDriver.GetMetadata": self._metadata,
            "GraphDriver.Cleanup": self._cleanup,
            "GraphDriver.Capabilities": lambda _: {"Capabilities": {"ReproducesExactDiffs": False}},
            "GraphDriver.Diff": self._diff,
            "GraphDriver.Changes": self._changes,
            "GraphDriver.ApplyDiff": self._apply_diff,
            "GraphDriver.DiffSize": self._diff_size,
        }

    def recover(self) -> None:
        """Continue where an earlier process was killed, if there was one."""
        kept = self._base / _KEPT
        if kept.exists():
            self._prepare(json.loads(kept.read_bytes()))
            for identity in self._journal.unanswered():
                self._abandon(identity, "was being created, used or removed when the driver was killed")
                self._journal.forget(identity)
            _log.info("recovered the layers in %s", self._now().store.home)

    def end(self) -> None:
        """Unmount everything, since the processes that serve repositories end with the plugin.

        Docker would do so too, but when it restarts the plugin after a crash of its own, a slow unmount there
        can hit the place at which the new plugin's mounts appear.
        """
        if self._ready is not None:
            self._ready.mounts.drop_all()

    def answer(self, call: Call) -> Reply | Streamed:
        """Carry out one call. Raises CvmfsGraphdriverError, OSError."""
        handler = self._calls.get(call.method)
        if handler is None:
            raise RequestError(f"{call.method!r} is not a call of the graph driver protocol")
        return handler(call)

    def _now(self) -> _Ready:
        if self._ready is None:
            raise NotInitialisedError("Docker has not initialised the graph driver yet")
        return self._ready

    # The driver as a whole

    def _init(self, call: Call) -> Reply:
        arguments = call.arguments()
        self._prepare(arguments)
        for identity in orphaned_init_layers(self._now().store):
            self._abandon(identity, "prepares a container that does not exist")
        write_whole_file(self._base / _KEPT, json.dumps(arguments).encode())
        return {}

    def _prepare(self, arguments: Mapping[str, Any]) -> None:
        home = Path(_text(arguments, "Home"))
        if not home.is_absolute() or ".." in home.parts or not home.is_relative_to(self._base):
            raise RequestError(f"the driver's home {home} is not below {self._base}")
        options = DriverOptions.parse(arguments.get("Opts") or ())
        owners = Owners(_id_map(arguments, "UIDMaps"), _id_map(arguments, "GIDMaps"))
        store = LayerStore(home, owners.root)
        store.prepare()
        backing = check_host(home, override_kernel_check=options.override_kernel_check)
        sizes = SizeLimits(home, backing.name, options.size)
        plane = self._make_plane(home, owners)
        mounts = LayerMounts(store, plane, idle=self._idle)
        mounts.adopt()
        store.clean()
        self._ready = _Ready(options, backing, sizes, owners, store, mounts, plane)

    def _abandon(self, identity: str, why: str) -> None:
        """Remove a layer that Docker does not know."""
        _log.warning("removing the layer %s, which %s", identity, why)
        self._drop(identity)

    def _drop(self, identity: str) -> None:
        """Unmount a layer even if it is in use, and remove it."""
        now = self._now()
        now.mounts.drop(identity)
        now.store.remove(identity)

    def _status(self, call: Call) -> Reply:
        del call
        now = self._now()
        rows = [
            ("Backing Filesystem", now.backing.name),
            ("Supports d_type", str(now.backing.d_type).lower()),
            ("Native Overlay Diff", "true"),
            ("Size Limits", "no: " + now.sizes.obstacle if now.sizes.obstacle else "yes"),
            ("Data Plane", f"{now.plane.name} ({now.plane.why})" if now.plane.why else now.plane.name),
            ("CVMFS Mount Method", "internal"),
            self._uploader.status(),
            *now.plane.status(self._problems),
        ]
        return {"Status": [list(row) for row in rows]}

    def _cleanup(self, call: Call) -> Reply:
        del call
        self._now().mounts.drop_all()
        with suppress(FileNotFoundError):
            (self._base / _KEPT).unlink()
        return {}

    # One layer

    def _create(self, call: Call) -> Reply:
        arguments = call.arguments()
        store, identity = self._now().store, check_identity(_text(arguments, "ID"))
        container = call.method == "GraphDriver.CreateReadWrite"
        size = self._now().sizes.wanted(arguments.get("StorageOpt") or {}, container=container)
        with nullcontext() if store.exists(identity) else self._journal.during(identity):
            layer = store.create(identity, arguments.get("Parent") or None, container=container)
            if size:
                self._limit(layer, size)
        self._new.add(layer.id)
        return {}

    def _limit(self, layer: StoredLayer, size: int) -> None:
        """Limit the size of a new layer; if that fails, remove the layer."""
        try:
            self._now().sizes.limit(layer.directory, size)
        except CvmfsGraphdriverError:
            self._now().store.remove(layer.id)
            raise

    def _remove(self, call: Call) -> Reply:
        identity = _text(call.arguments(), "ID")
        self._new.discard(identity)
        with self._journal.during(check_identity(identity)):
            self._drop(identity)
        return {}

    def _get(self, call: Call) -> Reply:
        arguments = call.arguments()
        now, identity = self._now(), _text(arguments, "ID")
        try:
            with self._at_risk(identity):
                path = self._boot.until_reachable(
                    lambda: now.mounts.get(identity, arguments.get("MountLabel") or "")
                )
        except CvmfsGraphdriverError:
            if identity in self._new and is_init_layer(identity):
                now.store.remove(identity)  # Docker abandons the container, and forgets this layer
            raise
        return {"Dir": str(path)}

    def _put(self, call: Call) -> Reply:
        identity = _text(call.arguments(), "ID")
        with self._at_risk(identity):
            self._now().mounts.put(identity)
        return {}

    def _at_risk(self, identity: str) -> AbstractContextManager[None]:
        """Journal an operation if the layer is one that Docker forgets as soon as a call fails."""
        return self._journal.during(identity) if is_init_layer(identity) else nullcontext()

    def _exists(self, call: Call) -> Reply:
        return {"Exists": self._now().store.exists(_text(call.arguments(), "ID"))}

    def _metadata(self, call: Call) -> Reply:
        now = self._now()
        layer = now.store.get(_text(call.arguments(), "ID"))
        data = {"UpperDir": str(layer.diff), "WorkDir": str(layer.work), "MergedDir": str(layer.merged)}
        parent = layer.parent
        if parent:
            data["LowerDir"] = ":".join(map(str, sources_above(now.store.ancestry(parent))))
        return {"Metadata": data}

    # What is in a layer

    def _diff(self, call: Call) -> Streamed:
        now, arguments = self._now(), call.arguments()
        layer = now.store.get(_text(arguments, "ID"))
        parent = arguments.get("Parent") or None
        if parent != layer.parent:
            raise LayerStateError(
                f"{layer.id} can only be compared with its parent, which is {layer.parent or 'none'} "
                f"and not {parent or 'none'}"
            )
        published = self._published(layer)
        if published is not None:
            return Streamed(lambda out: copyfileobj(io.BytesIO(published), out))
        return Streamed(lambda out: write_diff(layer.diff, out, now.owners))

    def _published(self, layer: StoredLayer) -> bytes | None:
        """Publish a container's layer; returns the thin layer's stream, or None if it is not published.

        Only layers above thin layers are published: an image that is complete in its registry remains so.
        """
        if not (layer.is_container and self._uploader.is_configured and any(os.scandir(layer.diff))):
            return None
        now = self._now()
        below = [each.thin for each in now.store.ancestry(layer.id) if not each.is_container]
        if not any(below):
            return None
        with tempfile.TemporaryFile(dir=now.store.home) as file:
            write_diff(layer.diff, file, now.owners)
            file.seek(0)
            new = self._uploader.publish(file, self._is_visible)
        return None if new is None else thin_layer(_upon(below, new).dump())

    def _is_visible(self, location: LayerLocation) -> bool:
        """Whether this node has, or can get, a revision with that layer."""
        try:
            self._now().plane.repository(LayerPath(location.repository, location.path))
        except CvmfsGraphdriverError as error:
            _log.debug("%s is not visible yet: %s", location.url, error)
            return False
        return True

    def _changes(self, call: Call) -> Reply:
        now, arguments = self._now(), call.arguments()
        identity, parent = _text(arguments, "ID"), arguments.get("Parent") or None
        found = changes(now.mounts.view(identity), now.mounts.view_below(parent))
        return {
            "Changes": [
                {"Path": change.path.decode("utf-8", "replace"), "Kind": change.kind.value}
                for change in found
            ]
        }

    def _apply_diff(self, call: Call) -> Reply:
        now, identity = self._now(), call.query.get("id", "")
        layer = now.store.get(identity)
        # When a connection breaks, Docker tries again with the rest of the stream, which may even look like a
        # complete one. So a layer is filled only once, by the process that created it.
        if identity not in self._new:
            raise LayerStateError(
                f"the plugin was restarted while receiving the layer {identity}: pull or load the image again"
            )
        self._new.remove(identity)
        layer.begin_filling()
        size, thin = apply_layer(call.body, layer.diff, now.owners)
        layer.end_filling(thin)
        return {"Size": size}

    def _diff_size(self, call: Call) -> Reply:
        return {"Size": size_of(self._now().store.get(_text(call.arguments(), "ID")).diff)}


def _upon(below: Sequence[ThinImage | None], new: ThinLayer) -> ThinImage:
    """The thin layer that stands for ``new``, and also for the layers below it if all of these are thin.

    ``below`` has None for a normal layer; at least one layer is thin.
    """
    thin = [each for each in below if each is not None]
    origin = thin[0].origin
    parts = [new]
    if len(thin) == len(below):
        parts += [part for each in thin for part in reversed(each.layers)]
    layers: list[ThinLayer] = []
    for part in parts:  # the uppermost of equal ones suffices
        if all(part.digest != other.digest and part.location != other.location for other in layers):
            layers.append(part)
    return ThinImage(tuple(reversed(layers)), origin)


def _id_map(arguments: Mapping[str, Any], name: str) -> IdMap:
    try:
        return IdMap(
            [
                IdRange(int(each["container_id"]), int(each["host_id"]), int(each["size"]))
                for each in arguments.get(name) or ()
            ]
        )
    except (TypeError, KeyError, ValueError) as error:
        raise RequestError(f"{name} do not have the form that Docker uses: {error!r}") from error


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        # Docker sends an empty request when it retries after a broken connection.
        raise RequestError(f"the request has no {name}; if the plugin has just been restarted, try again")
    return value
