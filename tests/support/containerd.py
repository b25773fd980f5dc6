"""containerd with our snapshotter as a proxy plugin, and its client ``ctr``.

Owns: its configuration, start and end, in a mount namespace of its own, into which mounts below the scratch
directory propagate, as on a host run by systemd.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, bind, mount, umount
from demo.daemons import first_child, running, wait_for
from demo.installation import Installation

__all__ = ["NAME", "Containerd", "Docker", "containerd", "shared_directory"]

NAME = "cvmfs-snapshotter"
_PATIENCE = 60
_CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
temp = "{directory}/temp"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
]
[grpc]
address = "{directory}/c.sock"
[proxy_plugins.{name}]
type = "snapshot"
address = "{socket}"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "{name}"
"""


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A scratch directory with a short name, whose mounts other namespaces see."""
    directory = Path(tempfile.mkdtemp(prefix="sn-", dir="/var/tmp"))
    bind(directory, directory)
    mount(None, directory, None, MountFlag.SHARED)
    try:
        yield directory
    finally:
        umount(directory, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
        shutil.rmtree(directory)


class Containerd:
    """A running containerd below ``directory``."""

    pid = 0
    """The process that contains it."""

    def __init__(self, directory: Path, installation: Installation) -> None:
        self.log = directory / "log"
        self._directory = directory
        self._installation = installation

    @property
    def is_lazy(self) -> bool:
        """Whether its ``ctr`` says which layers it wants, as all other clients of any version do."""
        return not self.ctr("version").partition("Version:")[2].strip().lstrip("v").startswith("1.")

    def answers(self) -> bool:
        return self._ctr("version").returncode == 0

    def ctr(self, *words: str) -> str:
        """Run the client; returns what it prints."""
        return self.ctr_bytes(*words).decode()

    def ctr_bytes(self, *words: str) -> bytes:
        done = self._ctr(*words)
        assert done.returncode == 0, f"ctr {words}: {done.stderr.decode()}\n{self.log.read_text()[-4000:]}"
        return done.stdout

    def pull(self, reference: str) -> None:
        self.ctr("images", "pull", "--plain-http", "--snapshotter", NAME, reference)

    def run(self, reference: str, *words: str, keep: str = "") -> str:
        """What a new container prints; ``keep`` is its name if it is to remain."""
        options, name = ([], keep) if keep else (["--rm"], f"c{time.monotonic_ns()}")
        return self.ctr("run", *options, "--snapshotter", NAME, reference, name, *words)

    @contextmanager
    def docker(self) -> Iterator["Docker"]:
        """A dockerd that uses this containerd, in its namespaces."""
        place = self._directory / "docker"
        place.mkdir()
        (place / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
        command = [
            *("nsenter", f"--target={first_child(self.pid)}", "--mount", "--pid", "--root", "--wd=/"),
            *("/usr/sbin/dockerd", f"--containerd={self._directory}/c.sock", f"--storage-driver={NAME}"),
            *(f"--config-file={place}/daemon.json", f"--host=unix://{place}/docker.sock"),
            *(f"--data-root={place}/data", f"--exec-root={place}/exec", f"--pidfile={place}/docker.pid"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--insecure-registry=127.0.0.0/8"),
        ]
        client = Docker([*self._installation.client(), f"--host=unix://{place}/docker.sock"], place / "log")
        with client.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(client.answers, process, "dockerd", client.log)
            yield client
        finally:
            os.kill(first_child(process.pid), signal.SIGTERM)
            process.wait(_PATIENCE)

    def blobs(self) -> int:
        """How many blobs of images are here."""
        return len(self.ctr("content", "ls", "--quiet").split())

    def _ctr(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        program = self._installation.command("/usr/bin/ctr")
        return subprocess.run(
            [*program, "--address", f"{self._directory}/c.sock", *words],
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            env={**os.environ, "TMPDIR": str(self._directory)},
        )


class Docker:
    """A ``docker`` command line, to be continued."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self._words = words
        self.log = log

    def __call__(self, *words: str) -> str:
        """Run it; returns what it prints."""
        return self.output(*words).decode()

    def output(self, *words: str) -> bytes:
        done = self._run(*words)
        assert done.returncode == 0, f"docker {words}: {done.stderr.decode()}\n{self.log.read_text()[-4000:]}"
        return done.stdout

    def answers(self) -> bool:
        return self._run("version").returncode == 0

    def _run(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run([*self._words, *words], capture_output=True, check=False, timeout=_PATIENCE)


@contextmanager
def containerd(directory: Path, socket: Path, installation: Installation) -> Iterator[Containerd]:
    """A containerd whose files lie below the new ``directory``."""
    directory.mkdir()
    config = directory / "config.toml"
    config.write_text(_CONFIG.format(directory=directory, socket=socket, name=NAME))
    engine = Containerd(directory, installation)
    command = [*installation.program("/usr/bin/containerd"), "--config", str(config)]
    with running(command, engine.log) as process:
        engine.pid = process.pid
        wait_for(engine.answers, process, "containerd", engine.log)
        yield engine
