"""The snapshotter's process: one for each state directory, until SIGTERM.

Owns: start, end and signals, and that no second one uses the same state. What is mounted, and the processes
that serve repositories, stay when it ends: containers use them. Must not know: what calls mean.
"""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.kernel.readiness import notify_ready
from cvmfs_graphdriver.planes.choice import choose_plane
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
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with _alone(state):
        plane = choose_plane(
            configuration.data_plane,
            state,
            configuration.cvmfs_config,
            _overrides(configuration),
            stacked=True,
        )
        lookup = RepositoryLookup(plane, configuration.repositories, configuration.lookup_timeout)
        with closing(Snapshots(state, plane, lookup, remap_ids=configuration.remap_ids)) as snapshots:
            snapshots.recover()
            service = Service(snapshots)
            service.start(configuration.socket)
            _log.info("serving at %s, with the %s plane (%s)", configuration.socket, plane.name, plane.why)
            notify_ready()
            ended.wait()
            service.stop(_GRACE).wait()


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


def _overrides(configuration: SnapshotterConfiguration) -> Mapping[str, str]:
    """Parameters of CernVM-FS that images require, and where the cache is."""
    overrides = {
        "CVMFS_CACHE_BASE": str(configuration.state / "cache"),
        "CVMFS_SHARED_CACHE": "yes",
        "CVMFS_CLAIM_OWNERSHIP": "no",
        "CVMFS_CHECK_PERMISSIONS": "yes",
        "CVMFS_SUID": "yes",
    }
    if configuration.cache_quota is not None:
        overrides["CVMFS_QUOTA_LIMIT"] = str(configuration.cache_quota)
    return overrides
