"""The snapshotter's process: one for each state directory, until SIGTERM.

Owns: start, end and signals, and that no second one uses the same state. What is mounted, and the processes
that serve repositories, stay when it ends: containers use them. Must not know: what calls mean.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.metrics_server import metrics_server
from cvmfs_graphdriver.http.server import running
from cvmfs_graphdriver.kernel.unix.notify import notify
from cvmfs_graphdriver.kernel.waiting.ending import EndSignal
from cvmfs_graphdriver.planes.choice import choose_plane
from cvmfs_graphdriver.planes.mounted import mounted_repositories
from cvmfs_graphdriver.snapshotter.administration.meters import Meters
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.errors import SnapshotterError
from cvmfs_graphdriver.snapshotter.lookup import RepositoryLookup
from cvmfs_graphdriver.snapshotter.service import Service
from cvmfs_graphdriver.snapshotter.snapshots import Snapshots

__all__ = ["run_snapshotter"]

_log = logging.getLogger(__name__)

_GRACE: Final = 5.0
"""Seconds that calls in progress may take when the process is told to end."""


def run_snapshotter(configuration: SnapshotterConfiguration) -> None:
    """Serve until SIGTERM or SIGINT. Raises CvmfsGraphdriverError: it cannot start."""
    state = configuration.state
    ending = EndSignal()
    with _alone(state):
        plane = choose_plane(
            configuration.data_plane,
            state,
            configuration.cvmfs_config,
            configuration.overrides,
            stacked=True,
        )
        lookup = RepositoryLookup(plane, configuration.repositories, configuration.lookup_timeout)
        meters = Meters()
        with (
            closing(Snapshots(state, plane, lookup, meters, remap_ids=configuration.remap_ids)) as snapshots,
            _metrics(configuration, meters),
        ):
            snapshots.recover()
            service = Service(snapshots)
            service.start(configuration.socket)
            _log.info("serving at %s, with the %s plane (%s)", configuration.socket, plane.name, plane.why)
            notify("READY=1")
            ending.wait()
            notify("STOPPING=1")
            service.stop(_GRACE).wait()


@contextmanager
def _metrics(configuration: SnapshotterConfiguration, meters: Meters) -> Iterator[None]:
    """Serve metrics if they are configured; if that is not possible, containers matter more."""
    if configuration.metrics is None:
        yield
        return
    host, port = configuration.metrics

    def text() -> bytes:
        return meters.text() + metrics_text(
            mounted_repositories(configuration.mounts, configuration.settings).statuses
        )

    with ExitStack() as running_server:
        try:
            running_server.enter_context(running(metrics_server(host, port, text)))
        except OSError as error:
            _log.error("cannot serve metrics at %s:%d: %s", host, port, error.strerror)
        yield


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state directory's lock. Raises SnapshotterError: another process does."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SnapshotterError(f"cannot use the state directory {state}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise SnapshotterError(f"another snapshotter is using {state}; stop it first") from error
    finally:
        os.close(descriptor)
