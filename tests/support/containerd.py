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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, bind, mount, umount
from cvmfs_graphdriver.snapshotter.installation.containerd import (
    DROP_INS,
    PluginSetting,
    drop_in,
    with_snapshotter,
)
from demo.daemons import first_child, remove_cgroups, running, wait_for
from demo.installation import Installation
from tests.support.cri import Cri
from tests.support.snapshotter_process import SnapshotterProcess

__all__ = ["NAME", "Containerd", "Docker", "containerd", "shared_directory"]

NAME = "cvmfs-snapshotter"
_NAMESPACE = f"cvmfs-tests-{os.getpid()}"
_PATIENCE = 60
_NEW, _OLD_FORM, _NEW_FORM = 2, 2, 3
_CONFIG = """
root = "{directory}/root"
state = "{directory}/state"
temp = "{directory}/temp"
[grpc]
address = "{directory}/c.sock"
"""
# Without CAP_SYS_RESOURCE nobody may lower the score by which the kernel kills.
_OLD_CRI = """
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
stats_collect_period = 1
sandbox_image = "{pause}"
"""
_CRI = """
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.images"]
stats_collect_period = 1
pinned_images = {{ sandbox = "{pause}" }}
"""
# Shims and runc keep sockets and states there, wherever containerd's own directories are.
_PRIVATE = 'mkdir -p /run/containerd; mount -t tmpfs tmpfs /run/containerd; exec "$@"'


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
        self.socket = directory / "c.sock"
        self._directory = directory
        self._installation = installation

    @property
    def is_lazy(self) -> bool:
        """Whether its ``ctr`` says which layers it wants, as all other clients of any version do."""
        return not self.ctr("version").partition("Version:")[2].strip().lstrip("v").startswith("1.")

    def answers(self) -> bool:
        try:
            return self.succeeds("version")
        except LookupError:  # it has not been started yet
            return False

    def succeeds(self, *words: str) -> bool:
        """Run the client; whether it succeeds."""
        return self._ctr(*words).returncode == 0

    def ctr(self, *words: str) -> str:
        """Run the client; returns what it prints."""
        return self.ctr_bytes(*words).decode()

    def ctr_bytes(self, *words: str) -> bytes:
        done = self._ctr(*words)
        assert done.returncode == 0, f"ctr {words}: {done.stderr.decode()}\n{self.log.read_text()[-4000:]}"
        return done.stdout

    def pull(self, reference: str) -> None:
        self.ctr(*self.pulling(reference))

    def pulling(self, reference: str) -> tuple[str, ...]:
        """The command that pulls an image."""
        return ("images", "pull", "--plain-http", "--snapshotter", NAME, reference)

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
            *self._inside(),
            *("/usr/sbin/dockerd", f"--containerd={self._directory}/c.sock", f"--storage-driver={NAME}"),
            *(f"--config-file={place}/daemon.json", f"--host=unix://{place}/docker.sock"),
            *(f"--data-root={place}/data", f"--exec-root={place}/exec", f"--pidfile={place}/docker.pid"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--insecure-registry=127.0.0.0/8"),
            f"--cgroup-parent=/{_NAMESPACE}",
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

    def cri(self) -> Cri:
        """A client that does what a kubelet does."""
        return Cri(self.socket, f"/{_NAMESPACE}")

    def blobs(self) -> int:
        """How many blobs of images are here."""
        return len(self.ctr("content", "ls", "--quiet").split())

    def _inside(self) -> list[str]:
        """The words before a command in containerd's namespaces."""
        return ["nsenter", f"--target={first_child(self.pid)}", "--mount", "--pid", "--root", "--wd=/"]

    def _ctr(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self._inside(), "/usr/bin/ctr", "--address", f"{self._directory}/c.sock", *words],
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            env={**os.environ, "TMPDIR": str(self._directory), "CONTAINERD_NAMESPACE": _NAMESPACE},
        )


class Docker:
    """A ``docker`` command line, to be continued."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self._words = words
        self.log = log

    def __call__(self, *words: str, **environment: str) -> str:
        """Run it; returns what it prints."""
        return self.output(*words, environment=environment).decode()

    def output(self, *words: str, given: bytes = b"", environment: Mapping[str, str] = {}) -> bytes:
        done = self._run(*words, given=given, environment=environment)
        assert done.returncode == 0, f"docker {words}: {done.stderr.decode()}\n{self.log.read_text()[-4000:]}"
        return done.stdout

    def refused(self, *words: str) -> str:
        """Run it, which must fail; returns the message."""
        done = self._run(*words)
        assert done.returncode != 0, f"docker {words}: {done.stdout.decode()}"
        return done.stderr.decode()

    def run(self, image: str, *words: str) -> str:
        """What a new container without network prints, which is removed."""
        return self("run", "--rm", "--network=none", image, *words)

    def answers(self) -> bool:
        return self._run("version").returncode == 0

    def _run(
        self, *words: str, given: bytes = b"", environment: Mapping[str, str] = {}
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self._words, *words],
            input=given,
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            env={**os.environ, **environment},
        )


@contextmanager
def containerd(
    directory: Path, serving: SnapshotterProcess, installation: Installation, pause: str
) -> Iterator[Containerd]:
    """A containerd whose files lie below the new ``directory``, with what ``snapshotter install`` writes.

    ``pause`` is the image of sandboxes.
    """
    directory.mkdir()
    major, _ = installation.version("/usr/bin/containerd")
    form = _OLD_FORM if major < _NEW else _NEW_FORM
    setting = PluginSetting(
        name=NAME,
        socket=str(serving.socket),
        state=str(serving.state),
        major=major,
        form=form,
        capabilities=("only-remap-ids",),
    )
    own = f"version = {form}\n{_CONFIG}{_OLD_CRI if major < _NEW else _CRI}"
    main = with_snapshotter(own.format(directory=directory, pause=pause).encode(), setting)
    config, added = directory / "config.toml", directory / "added.toml"
    config.write_bytes(main.replace(DROP_INS.encode(), os.fsencode(added)))
    added.write_bytes(drop_in(setting))
    engine = Containerd(directory, installation)
    private = ("sh", "-euc", _PRIVATE, "sh")
    command = [*installation.program(*private, "/usr/bin/containerd"), "--config", str(config)]
    with running(command, engine.log) as process:
        engine.pid = process.pid
        wait_for(engine.answers, process, "containerd", engine.log)
        yield engine
    remove_cgroups(_NAMESPACE)
