"""All that starts an unmodified image lazily: registry, repository, snapshotter, containerd, Docker.

Owns: putting them together, small images for them, and what is left over of images and containers when there
are none. Must not know: what is done to them.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.kernel.mountinfo import MountEntry, mounts_below, parse_mountinfo
from demo.daemons import first_child
from demo.installation import Installation
from demo.stage import FQRN, Stage
from tests.support.containerd import Containerd, Docker, containerd
from tests.support.images import TestLayer, push, write_layout
from tests.support.mounts import pids_serving, wait_until
from tests.support.snapshotter_process import SnapshotterProcess, snapshotter
from tests.support.tars import tar_of

__all__ = ["LazySite", "base_layer", "lazy_site", "push_layers"]

_BUSYBOX = Path("/bin/busybox")
_REMOVALS = {
    "tasks": ("rm", "--force"),
    "containers": ("rm",),
    "leases": ("rm", "--sync"),
    "images": ("rm", "--sync"),
}
_PAIR = 2
"""A keeper and its server."""


def base_layer(motd: str = "base\n") -> TestLayer:
    """A shell, and a file."""
    shell = tarfile.TarInfo("bin/sh")
    shell.type, shell.linkname = tarfile.SYMTYPE, "busybox"
    return TestLayer(
        tar_of(("bin", None), ("bin/busybox", _BUSYBOX.read_bytes()), shell, ("motd", motd.encode()))
    )


def push_layers(stage: Stage, name: str, layers: Sequence[TestLayer], *, lazy: bool) -> str:
    """Push an image of these layers; ``lazy`` if the repository is to have them. Returns its reference."""
    reference, layout = f"{stage.registry}/{name}:1", stage.scratch / f"layout-{name}"
    write_layout(layout, layers, config={"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    push(layout, reference)
    if lazy:
        stage.publish(reference)
    return reference


@dataclass(frozen=True, slots=True)
class LazySite:
    """A node on a stage: everything runs."""

    stage: Stage
    serving: SnapshotterProcess
    engine: Containerd
    docker: Docker

    @property
    def repository(self) -> Path:
        """Where the repository is mounted."""
        return self.serving.state / "cvmfs" / FQRN

    def forget_everything(self) -> None:
        """Remove all containers, images and builds, as an administrator would.

        An engine that was killed, or whose containerd was, may have forgotten a container that containerd
        knows, and leaves leases, which containerd honours for a day, with any snapshotter.
        """
        docker, ctr = self.docker, self.engine.ctr
        if containers := docker("ps", "--all", "--quiet").split():
            docker("rm", "--force", *containers)
        docker("system", "prune", "--all", "--force", "--volumes")
        if images := set(docker("images", "--all", "--quiet").split()):
            docker("rmi", "--force", *images)
        for space in ctr("namespaces", "ls", "--quiet").split():
            inside = ("--namespace", space)
            for kind, removal in _REMOVALS.items():
                if names := ctr(*inside, kind, "ls", "--quiet").split():
                    self.engine.succeeds(*inside, kind, *removal, *names)

    def nothing_remains(self) -> None:
        """Once containerd has collected its garbage."""
        found: list[str] = []

        def nothing() -> bool:
            found[:] = self.left_over()
            return not found

        try:
            wait_until(nothing, 60)
        except AssertionError as error:
            raise AssertionError(found) from error

    def left_over(self) -> list[str]:
        """What is there of snapshots, though there may be no image and no container."""
        state = self.serving.state
        table = Path(f"/proc/{first_child(self.engine.pid)}/mountinfo").read_bytes()
        mounts = [*mounts_below(state), *parse_mountinfo(table)]
        processes = pids_serving(self.repository)
        return [
            *(f"row {info.name}" for info in self.serving.infos()),
            *(f"directory {name}" for name in self.serving.directories()),
            *(f"mount point {name}" for name in self.serving.standing()),
            *(f"link {name}" for name in os.listdir(state / "l")),
            *(f"mount {mount.mount_point!r}" for mount in mounts if self._is_foreign(mount)),
            *(f"process {pid}" for pid in processes[: len(processes) - _PAIR]),
            *(f"shim {pid}" for pid in self.engine.shims()),
        ]

    def _is_foreign(self, mount: MountEntry) -> bool:
        """Whether something is mounted for a snapshot or a container.

        dockerd mounts containers' roots itself; what one that was killed had mounted, the next may not know.
        """
        place = Path(os.fsdecode(mount.mount_point))
        if place.is_relative_to(self.docker.roots):
            return False
        ours = place.is_relative_to(self.serving.state) and place != self.repository
        return ours or (mount.filesystem == b"overlay" and place.is_relative_to(self.engine.directory))


def _configure(etc: Path, stage: Stage) -> Path:
    """What is in /etc/cvmfs of the node."""
    etc.mkdir()
    values = {
        "CVMFS_SERVER_URL": f"{stage.served.url}/cvmfs/@fqrn@",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_KEYS_DIR": str(stage.keys),
    }
    (etc / "default.local").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return etc


@contextmanager
def lazy_site(place: Path, stage: Stage, plane: str, installation: Installation) -> Iterator[LazySite]:
    """A node whose files are in the new directory ``place``."""
    place.mkdir()
    with (
        snapshotter(place, [FQRN], _configure(place / "etc", stage), plane) as serving,
        containerd(place / "c", serving.socket, serving.state, installation) as engine,
        engine.docker() as docker,
    ):
        yield LazySite(stage, serving, engine, docker)
