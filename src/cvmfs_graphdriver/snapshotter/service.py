"""The edge to containerd: the snapshots service over gRPC.

Owns: the translation of requests, answers and errors. Must not know: what the operations do.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.snapshotter.errors import SnapshotterError
from cvmfs_graphdriver.snapshotter.messages import SERVICE, message
from cvmfs_graphdriver.snapshotter.mount_options import MountOption
from cvmfs_graphdriver.snapshotter.snapshot import Snapshot
from cvmfs_graphdriver.snapshotter.snapshots import Snapshots

__all__ = ["Service"]

_log = logging.getLogger(__name__)

_THREADS: Final = 64
"""Requests that may wait for a repository at once without delaying others."""
_PAGE: Final = 100
_SECOND: Final = 1_000_000_000

_Empty = message("google.protobuf.Empty")
_Info = message("Info")
_Mount = message("containerd.types.Mount")
_ListResponse = message("ListSnapshotsResponse")


class Service:
    """A gRPC server on a unix socket, which answers for ``snapshots``."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        single = grpc.unary_unary_rpc_method_handler
        calls: dict[str, tuple[Callable[[Any], Any], str, Any]] = {
            "Prepare": (self._prepare, "PrepareSnapshotRequest", single),
            "View": (self._view, "ViewSnapshotRequest", single),
            "Mounts": (self._mounts, "MountsRequest", single),
            "Commit": (self._commit, "CommitSnapshotRequest", single),
            "Remove": (self._remove, "RemoveSnapshotRequest", single),
            "Stat": (self._stat, "StatSnapshotRequest", single),
            "Update": (self._update, "UpdateSnapshotRequest", single),
            "List": (self._list, "ListSnapshotsRequest", grpc.unary_stream_rpc_method_handler),
            "Usage": (self._usage, "UsageRequest", single),
            "Cleanup": (self._cleanup, "CleanupRequest", single),
        }
        handlers = {
            name: kind(
                _guarded(name, call),
                request_deserializer=message(request).FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (call, request, kind) in calls.items()
        }
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="call"))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def start(self, socket: Path) -> None:
        """Begin to serve. Raises SnapshotterError: the socket cannot be used."""
        try:
            socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._server.add_insecure_port(f"unix:{socket}")
            socket.chmod(0o600)
        except (RuntimeError, OSError) as error:
            raise SnapshotterError(f"cannot listen at {socket}: {error}") from error
        self._server.start()

    def stop(self, grace: float) -> threading.Event:
        """Accept no more calls, and end those in progress after ``grace`` seconds."""
        stopped: threading.Event = self._server.stop(grace)
        return stopped

    def _prepare(self, request: Any) -> Any:
        mounts = self._snapshots.prepare(request.key, request.parent, dict(request.labels))
        return message("PrepareSnapshotResponse")(mounts=map(_mount, mounts))

    def _view(self, request: Any) -> Any:
        mounts = self._snapshots.view(request.key, request.parent, dict(request.labels))
        return message("ViewSnapshotResponse")(mounts=map(_mount, mounts))

    def _mounts(self, request: Any) -> Any:
        return message("MountsResponse")(mounts=map(_mount, self._snapshots.mounts(request.key)))

    def _commit(self, request: Any) -> Any:
        self._snapshots.commit(request.name, request.key, dict(request.labels))
        return _Empty()

    def _remove(self, request: Any) -> Any:
        self._snapshots.remove(request.key)
        return _Empty()

    def _stat(self, request: Any) -> Any:
        return message("StatSnapshotResponse")(info=_info(self._snapshots.stat(request.key)))

    def _update(self, request: Any) -> Any:
        wanted = request.info
        changed = self._snapshots.update(wanted.name, dict(wanted.labels), list(request.update_mask.paths))
        return message("UpdateSnapshotResponse")(info=_info(changed))

    def _list(self, request: Any) -> Iterator[Any]:
        found = [_info(snapshot) for snapshot in self._snapshots.select(list(request.filters))]
        return iter([_ListResponse(info=found[at : at + _PAGE]) for at in range(0, len(found), _PAGE)])

    def _usage(self, request: Any) -> Any:
        size, inodes = self._snapshots.usage(request.key)
        return message("UsageResponse")(size=size, inodes=inodes)

    def _cleanup(self, _: Any) -> Any:
        self._snapshots.cleanup()
        return _Empty()


def _guarded(name: str, call: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A handler whose failures become gRPC statuses, and never end the process."""

    def handle(request: Any, context: Any) -> Any:
        started = time.monotonic()
        try:
            return call(request)
        except SnapshotterError as error:
            status, text = error.status, str(error)
        except CvmfsGraphdriverError as error:  # a layer cannot be had now
            _log.warning("%s: %s", name, error)
            status, text = "UNAVAILABLE", str(error)
        except Exception as error:  # noqa: BLE001 - the outermost loop of a daemon: report it and continue
            _log.exception("%s failed unexpectedly", name)
            status, text = (
                "INTERNAL",
                f"{name} failed unexpectedly: {error!r}; please report this with the log",
            )
        finally:
            _log.debug("%s took %.3f s", name, time.monotonic() - started)
        return context.abort(grpc.StatusCode[status], text)

    return handle


def _mount(mount: MountOption) -> Any:
    return _Mount(type=mount.type, source=mount.source, options=mount.options)


def _info(snapshot: Snapshot) -> Any:
    info = _Info(name=snapshot.key, parent=snapshot.parent, kind=snapshot.kind, labels=snapshot.labels)
    for time_of, moment in ((info.created_at, snapshot.created), (info.updated_at, snapshot.updated)):
        time_of.seconds, time_of.nanos = divmod(moment, _SECOND)
    return info
