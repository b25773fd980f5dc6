"""dockerd on containerd's image store, with a snapshotter that containerd calls; all of our own.

Owns: their configuration, and how they see each other's mounts: they live in one set of namespaces, in which
the scratch directory shares its mounts, containerd and dockerd in a root of their own below it. When the
first process there ends, all end. Must not know: what is run.
"""

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from demo.daemons import DaemonError, DockerClient, first_child, remove_cgroups, running, wait_for
from demo.installation import HERE, Installation

__all__ = ["OVERLAYFS", "ContainerdEngine", "Snapshotter", "cvmfs_snapshotter"]

_SHARED = 'mount --bind "$1" "$1"; mount --make-shared "$1"; touch "$1/shared"; exec sleep infinity'
# Shims, runc and dockerd keep files there, wherever their own directories are.
_PRIVATE = """
mount --bind "$1" /etc/docker
shift
for place in /run/containerd /run/docker; do mkdir -p $place; mount -t tmpfs tmpfs $place; done
exec "$@"
"""
_CONFIG = """
version = 2
root = "{directory}/containerd"
state = "{directory}/state"
temp = "{directory}/temp"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
]
[grpc]
address = "{directory}/containerd.sock"
"""
_PROXY = """
[proxy_plugins.{name}]
type = "snapshot"
address = "{directory}/snapshotter.sock"
[proxy_plugins.{name}.exports]
enable_remote_snapshot_annotations = "true"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/{architecture}"
snapshotter = "{name}"
"""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Snapshotter:
    """A snapshotter by its name; ``command`` gives what serves one for an engine's directory and a socket."""

    name: str
    command: Callable[[Path, Path], Sequence[str]] | None = None
    """None: containerd has it."""
    inside: bool = field(default=False, kw_only=True)
    """Whether the program is in the root of containerd's installation."""


OVERLAYFS = Snapshotter("overlayfs")


def cvmfs_snapshotter(repository: str, etc: Path) -> Snapshotter:
    """Ours, as this project has it; ``etc`` is a node's /etc/cvmfs."""

    def command(directory: Path, socket: Path) -> Sequence[str]:
        config = directory / "config.toml"
        config.write_text(
            f'repositories = ["{repository}"]\nstate = "{directory}/snapshotter"\nsocket = "{socket}"\n'
            f'cvmfs_config = "{etc}"\n'
        )
        program = "from cvmfs_graphdriver.cli.main import main; main()"
        return [sys.executable, "-c", program, "snapshotter", "serve", "--config", str(config)]

    return Snapshotter("cvmfs-snapshotter", command)


class ContainerdEngine(DockerClient):
    """A containerd and a dockerd. Use it in a ``with`` statement, and ``start`` it there."""

    def __init__(self, scratch: Path, name: str, installation: Installation = HERE) -> None:
        self.directory = scratch / name
        self._installation = installation
        self._group = f"cvmfs-graphdriver-{os.getpid()}-{name}"
        self._stack = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.snapshotter = ""
        self._first = 0
        self._containerd = 0

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stack.close()
            for process in self._processes:
                process.wait()
        finally:  # though a signal comes meanwhile
            remove_cgroups(self._group)
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, snapshotter: Snapshotter) -> None:
        """Start all, and wait until dockerd answers."""
        log = self.directory / "log"
        holder = self._stack.enter_context(running(["sh", "-euc", _SHARED, "sh", str(self.directory)], log))
        wait_for((self.directory / "shared").exists, holder, "a set of namespaces", log)
        self._first = first_child(holder.pid)
        self.snapshotter = snapshotter.name
        self._start_containerd(snapshotter)
        if snapshotter.command is not None:
            address = self.directory / "snapshotter.sock"
            words = [*snapshotter.command(self.directory, address)]
            self._serve(snapshotter.name, words, lambda: _listens(address), inside=snapshotter.inside)
        self._start_dockerd(snapshotter.name)

    def ctr(self, *words: str, program: str = "ctr") -> str:
        """Run containerd's own client, or one that resembles it. Raises DaemonError with its message."""
        # It finds its pipes in /proc, which is that of the PID namespace.
        command = [
            *self._inside("--pid"),
            f"/usr/bin/{program}",
            f"--address={self.directory}/containerd.sock",
        ]
        done = subprocess.run(
            [*command, f"--namespace={self._group}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, "TMPDIR": str(self.directory)},
        )
        if done.returncode != 0:
            raise DaemonError(
                f"{program} {' '.join(words)[:200]}: {done.stderr.decode(errors='replace').strip()}"
            )
        return done.stdout.decode(errors="replace")

    def _start_containerd(self, snapshotter: Snapshotter) -> None:
        machine = platform.machine()
        text = _CONFIG if snapshotter.command is None else _CONFIG + _PROXY
        config = self.directory / "containerd.toml"
        config.write_text(
            text.format(
                directory=self.directory,
                name=snapshotter.name,
                architecture=_ARCHITECTURES.get(machine, machine),
            )
        )
        private = ("sh", "-euc", _PRIVATE, "sh", str(self._etc()), "/usr/bin/containerd")
        command = ["unshare", "--mount", "--propagation", "slave", *self._installation.program(*private)]
        socket = self.directory / "containerd.sock"
        process = self._serve("containerd", [*command, f"--config={config}"], lambda: _listens(socket))
        self._containerd = first_child(process.pid)

    def _start_dockerd(self, driver: str) -> None:
        config = self.directory / "daemon.json"
        config.write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
        command = [
            *("/usr/sbin/dockerd", f"--containerd={self.directory}/containerd.sock"),
            *(f"--storage-driver={driver}", f"--config-file={config}", f"--host={self.host}"),
            *(f"--data-root={self.directory}/data", f"--exec-root={self.directory}/exec"),
            *(f"--pidfile={self.directory}/docker.pid", f"--cgroup-parent=/{self._group}"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--insecure-registry=127.0.0.0/8"),
        ]
        self._serve("dockerd", command, self._is_up, inside=True)

    def _serve(
        self, name: str, command: list[str], is_up: Callable[[], bool], *, inside: bool = False
    ) -> "subprocess.Popen[bytes]":
        """Start a daemon in the namespaces, or where containerd is, and wait until it serves."""
        entry = ["nsenter", f"--target={self._first}", "--mount", "--pid"]
        log = self.directory / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*(self._inside("--pid") if inside else entry), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.directory,
                env={**os.environ, "TMPDIR": str(self.directory)},
            )
        self._processes.append(process)
        wait_for(is_up, process, name, log)
        return process

    def _inside(self, *options: str) -> list[str]:
        """The words before a command that is to see what containerd sees."""
        return ["nsenter", f"--target={self._containerd}", "--mount", *options, "--root", "--wd=/"]

    def _client(self) -> list[str]:
        return [*self._inside(), "/usr/bin/docker"]

    def _etc(self) -> Path:
        """A directory for /etc/docker, where dockerd writes a key; certificates of registries still apply."""
        etc = self.directory / "etc"
        etc.mkdir()
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree("/etc/docker", etc, dirs_exist_ok=True)
        return etc


def _listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(address))
        except OSError:
            return False
    return True
