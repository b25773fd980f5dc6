"""Whether this host can run the snapshotter: kernel, disk, unit, and who sees its mounts.

Owns: these checks. Must not know: engines' configuration, repositories.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.client.administration.checkup import Finding, Level
from cvmfs_graphdriver.kernel.mountinfo import mount_of
from cvmfs_graphdriver.kernel.overlay import takes_upper
from cvmfs_graphdriver.kernel.release import kernel_version
from cvmfs_graphdriver.kernel.unix.peer import serving_pid
from cvmfs_graphdriver.planes.choice import Choice, obstacle
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration

__all__ = ["check_kernel", "check_process", "check_state", "check_unit"]

_NAME: Final = "cvmfs-snapshotter.service"
_UNITS: Final = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_ENGINES: Final = ("containerd.service", "docker.service", "k3s.service", "k3s-agent.service")
_SOCKETS: Final = (
    Path("/run/containerd/containerd.sock"),
    Path("/run/k3s/containerd/containerd.sock"),
    Path("/run/docker.sock"),
)
_IDMAPPED: Final = (5, 19)
"""From here on overlayfs takes lower directories that are mapped."""
_LEAST_SPACE: Final = 1 << 30
_LEAST_SHARE: Final = 0.05


def check_kernel(configuration: SnapshotterConfiguration) -> Iterator[Finding]:
    """What mounting requires; the EROFS plane is tried, in a directory that is removed."""
    version, release = kernel_version(), os.uname().release
    if not Path("/dev/fuse").exists():
        yield Finding(Level.ERROR, "/dev/fuse does not exist", "modprobe fuse")
    if configuration.remap_ids and version < _IDMAPPED:
        yield Finding(
            Level.ERROR,
            f"remap_ids is true, but Linux {release} does not map the lower directories of an overlay",
            "use Linux 5.19 or newer, or set remap_ids = false",
        )
    if configuration.data_plane is Choice.FUSE:
        yield Finding(Level.OK, "the FUSE plane is used: data_plane says so")
        return
    state = configuration.state
    with tempfile.TemporaryDirectory(prefix=".new-", dir=state if state.is_dir() else None) as scratch:
        why_not = obstacle(Path(scratch), stacked=True)
    if not why_not:
        yield Finding(Level.OK, f"Linux {release} can do all that the EROFS plane needs")
    elif configuration.data_plane is Choice.EROFS:
        yield Finding(
            Level.ERROR, f"data_plane demands the EROFS plane: {why_not}", 'set data_plane = "auto"'
        )
    else:
        yield Finding(Level.OK, f"the FUSE plane is used: {why_not}")


def check_state(configuration: SnapshotterConfiguration) -> Iterator[Finding]:
    """The file system of the state directory, and how much room it has."""
    state = configuration.state
    there = next(path for path in (state, *state.parents) if path.is_dir())
    kind = mount_of(there).filesystem.decode()
    if not takes_upper(kind):
        yield Finding(
            Level.ERROR,
            f"{state} is on {kind}, which overlayfs cannot write to",
            "set state to a directory on ext4 or xfs",
        )
    total, _, free = shutil.disk_usage(there)
    status = os.statvfs(there)
    room = f"{free >> 20} MiB of {total >> 20} MiB are free for {state}"
    if free < max(_LEAST_SPACE, _LEAST_SHARE * total):
        yield Finding(Level.WARNING, room, "remove images, or move state to a larger disk")
    elif status.f_files and status.f_favail < _LEAST_SHARE * status.f_files:
        what = f"only {status.f_favail} of {status.f_files} inodes are free for {state}"
        yield Finding(Level.WARNING, what, "remove images, or move state to another file system")
    else:
        yield Finding(Level.OK, room)


def check_unit(root: Path) -> Iterator[Finding]:
    """Whether systemd starts the snapshotter, and before the engines."""
    unit = next((root / path / _NAME for path in _UNITS if (root / path / _NAME).is_file()), None)
    if unit is None:
        yield Finding(
            Level.WARNING,
            f"systemd has no unit {_NAME}",
            "cvmfs-graphdriver snapshotter install; or start the snapshotter before containerd yourself",
        )
        return
    text = unit.read_text(encoding="utf-8", errors="replace")
    before = {name for line in re.findall(r"^Before=(.*)$", text, re.MULTILINE) for name in line.split()}
    present = {name for name in _ENGINES if any((root / path / name).exists() for path in _UNITS)}
    late = sorted(present - before)
    if late:
        yield Finding(
            Level.ERROR,
            f"{unit} is not ordered before {', '.join(late)}: at boot containers cannot start",
            f"add Before={' '.join(late)} to it",
        )
    else:
        yield Finding(Level.OK, f"{_NAME} starts before {', '.join(sorted(present)) or 'all engines'}")
    wanted = (root / "etc/systemd/system").glob(f"*.wants/{_NAME}")
    if not any(True for _ in wanted):
        yield Finding(Level.ERROR, f"{_NAME} is not started at boot", f"systemctl enable {_NAME}")


def check_process(configuration: SnapshotterConfiguration) -> Iterator[Finding]:
    """Whether the snapshotter runs, and whether engines see what it mounts."""
    pid = serving_pid(configuration.socket)
    if pid is None:
        yield Finding(
            Level.ERROR, f"nobody serves {configuration.socket}", "systemctl restart cvmfs-snapshotter"
        )
        return
    yield Finding(Level.OK, f"the snapshotter runs (process {pid})")
    ours = _namespace(pid)
    shared = any(word.startswith(b"shared:") for word in mount_of(configuration.state).propagation)
    for socket in _SOCKETS:
        engine = serving_pid(socket)
        theirs = _namespace(engine) if engine else None
        if theirs is None or ours is None:
            continue
        if theirs == ours:
            yield Finding(Level.OK, f"who serves {socket} is in the snapshotter's mount namespace")
        elif not shared:
            yield Finding(
                Level.ERROR,
                f"who serves {socket} is in another mount namespace, and mounts do not propagate there",
                "start both without PrivateMounts=, PrivateTmp= and the like, or: mount --make-rshared /",
            )


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None
