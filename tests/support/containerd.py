"""containerd with our snapshotter as a proxy plugin, and its client ``ctr``.

Owns: its configuration, start and end, in a mount namespace of its own, into which mounts below the scratch
directory propagate, as on a host run by systemd.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, bind, mount, umount
from demo.daemons import running, wait_for
from demo.installation import Installation

__all__ = ["NAME", "Containerd", "containerd", "shared_directory"]

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


@contextmanager
def containerd(directory: Path, socket: Path, installation: Installation) -> Iterator[Containerd]:
    """A containerd whose files lie below the new ``directory``."""
    directory.mkdir()
    config = directory / "config.toml"
    config.write_text(_CONFIG.format(directory=directory, socket=socket, name=NAME))
    engine = Containerd(directory, installation)
    command = [*installation.program("/usr/bin/containerd"), "--config", str(config)]
    with running(command, engine.log) as process:
        wait_for(engine.answers, process, "containerd", engine.log)
        yield engine
