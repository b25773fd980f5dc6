"""The state of the snapshotter and of the repositories that it has mounted.

Owns: what is asked, and the rows that people read. It works without a running snapshotter: what is known of
snapshots lies in the database. Must not know: who shows it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from cvmfs_graphdriver.kernel.unix.peer import serving_pid
from cvmfs_graphdriver.planes.mounted import MountedRepositories, mounted_repositories
from cvmfs_graphdriver.planes.report import cache_row, degraded_row, repository_row
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.metadata import Metadata

__all__ = ["SnapshotterStatus"]


@dataclass(frozen=True, slots=True)
class SnapshotterStatus:
    """``pid`` is that of the process that serves, None if there is none.

    ``lazy`` counts the lazy snapshots by repository, ``pulled`` the others of images by why they are not.
    """

    configuration: SnapshotterConfiguration
    pid: int | None
    lazy: Counter[str]
    pulled: Counter[str]
    mounted: MountedRepositories

    @classmethod
    def of(cls, configuration: SnapshotterConfiguration) -> Self:
        """The current state. Raises SnapshotterError: the database cannot be read."""
        database = configuration.state / "metadata.db"
        snapshots = []
        if database.exists():
            with closing(Metadata(database, reading=True)) as metadata:
                snapshots = metadata.all()
        return cls(
            configuration,
            serving_pid(configuration.socket),
            Counter(each.source.layer.fqrn for each in snapshots if each.source),
            Counter(each.why_not.partition(":")[0] for each in snapshots if each.why_not),
            mounted_repositories(configuration.mounts, configuration.settings),
        )

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values for people."""
        socket = self.configuration.socket
        yield (
            "Snapshotter",
            f"not running: nobody serves {socket}; systemctl status cvmfs-snapshotter says more"
            if self.pid is None
            else f"serving {socket} (process {self.pid})",
        )
        yield "Lazy layers", _counted(self.lazy)
        yield "Pulled layers", _counted(self.pulled)
        names = {status.fqrn for status in self.mounted.statuses} | self.mounted.broken.keys()
        for status in self.mounted.statuses:
            yield repository_row(status)
            expires = datetime.fromtimestamp(status.whitelist_expires, UTC)
            yield f"Whitelist of {status.fqrn}", f"valid until {expires:%Y-%m-%d %H:%M} UTC"
        for fqrn in self.configuration.repositories:
            if fqrn not in names:
                yield f"Repository {fqrn}", "not mounted: nothing has been asked of it yet"
        quota = self.configuration.cache_quota
        cache = str(self.configuration.state / "cache")
        yield cache_row(cache, "" if quota is None else str(quota), self.mounted.statuses)
        yield degraded_row(*self.mounted)

    def as_json(self) -> dict[str, Any]:
        """The same for programs; repositories as ``cvmfs-graphdriver status --json`` shows them."""
        return {
            "pid": self.pid,
            "lazy": dict(self.lazy),
            "pulled": dict(self.pulled),
            "repositories": [status.as_json() for status in self.mounted.statuses],
            "broken": self.mounted.broken,
        }


def _counted(counts: Counter[str]) -> str:
    """The total and its parts, the largest first."""
    if not counts:
        return "0"
    return f"{counts.total()}: " + ", ".join(f"{name} {number}" for name, number in counts.most_common())
