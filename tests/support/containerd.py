"""containerd with our snapshotter as a proxy plugin, and its client ``ctr``.

Owns: its configuration, start and end, in a mount namespace of its own, into which mounts below the scratch
directory propagate, as on a host run by systemd.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, bind, mount, umount
from cvmfs_graphdriver.snapshotter.installation.containerd import (
    DROP_INS,
    PluginSetting,
    drop_in,
    with_snapshotter,
)
from demo.daemons import RESTARTED, first_child, process_named, remove_cgroups, running, wait_for
from demo.installation import Installation
from tests.support.cri import Cri

__all__ = ["NAME", "Containerd", "Docker", "containerd", "shared_directory"]

NAME = "cvmfs-snapshotter"
_NAMESPACE = f"cvmfs-tests-{os.getpid()}"
_PATIENCE = 60.0
_NEW, _OLD_FORM, _NEW_FORM = 2, 2, 3
_CONFIG = """
root = "{directory}/root"
state = "{directory}/state"
temp = "{directory}/temp"
[grpc]
address = "{directory}/c.sock"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "overlayfs"
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
_PRIVATE = "mkdir -p /run/containerd; mount -t tmpfs tmpfs /run/containerd\n" + RESTARTED


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
    """A containerd whose files lie below the new ``directory``, with what ``snapshotter install`` writes.

    The snapshotter is at ``socket`` and has its files in ``state``; ``pause`` is the image of sandboxes.
    """

    pid = 0
    """The process that contains it."""
    patience = _PATIENCE
    """Seconds that a command may take."""

    def __init__(
        self, directory: Path, socket: Path, state: Path, installation: Installation, pause: str
    ) -> None:
        directory.mkdir()
        self.directory = directory
        self.log = directory / "log"
        self.socket = directory / "c.sock"
        self._installation = installation
        self._config = directory / "config.toml"
        self._configure(str(socket), str(state), pause)
        self._stack = ExitStack()

    def _configure(self, socket: str, state: str, pause: str) -> None:
        major, _ = self._installation.version("/usr/bin/containerd")
        form = _OLD_FORM if major < _NEW else _NEW_FORM
        setting = PluginSetting(
            name=NAME, socket=socket, state=state, major=major, form=form, capabilities=("only-remap-ids",)
        )
        own = f"version = {form}\n{_CONFIG}{_OLD_CRI if major < _NEW else _CRI}"
        main = with_snapshotter(own.format(directory=self.directory, pause=pause).encode(), setting)
        added = self.directory / "added.toml"
        self._config.write_bytes(main.replace(DROP_INS.encode(), os.fsencode(added)))
        added.write_bytes(drop_in(setting))

    def start(self) -> None:
        """Start it and wait until it answers."""
        private = ("sh", "-euc", _PRIVATE, "sh")
        command = [
            *self._installation.program(*private, "/usr/bin/containerd"),
            *("--config", str(self._config)),
        ]
        process = self._stack.enter_context(running(command, self.log))
        self.pid = process.pid
        wait_for(self.answers, process, "containerd", self.log)

    def stop(self) -> None:
        """Stop it and its containers."""
        self._stack.close()
        remove_cgroups(_NAMESPACE)

    def crash(self) -> None:
        """End it and its containers, as a crash of the machine would: what lies in /run is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()
        shutil.rmtree(self.directory / "state", ignore_errors=True)

    def kill_daemon(self) -> None:
        """Kill containerd alone, and wait until it has been started again."""
        killed = process_named("containerd", self.pid)
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE
        while Path(f"/proc/{killed}").exists() or not self.answers():
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.02)

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

    def pull(self, reference: str, snapshotter: str = NAME) -> None:
        self.ctr(*self.pulling(reference, snapshotter))

    def pulling(self, reference: str, snapshotter: str = NAME) -> tuple[str, ...]:
        """The command that pulls an image."""
        return ("images", "pull", "--plain-http", "--snapshotter", snapshotter, reference)

    def run(self, reference: str, *words: str, keep: str = "", snapshotter: str = NAME) -> str:
        """What a new container prints; ``keep`` is its name if it is to remain."""
        options, name = ([], keep) if keep else (["--rm"], f"c{time.monotonic_ns()}")
        return self.ctr("run", *options, "--snapshotter", snapshotter, reference, name, *words)

    def read(self, container: str, path: str) -> bytes:
        """What a running container has in a file. ``ctr tasks exec`` may lose what short processes print."""
        tasks = dict(line.split()[:2] for line in self.ctr("tasks", "ls").splitlines())
        command = [*self.inside(), "cat", f"/proc/{tasks[container]}/root{path}"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    @contextmanager
    def docker(self, snapshotter: str = NAME) -> Iterator["Docker"]:
        """A dockerd that uses this containerd, in its namespaces."""
        place = self.directory / f"docker-{snapshotter}"
        place.mkdir()
        found = Docker(self, place, self._installation, snapshotter)
        found.start()
        try:
            yield found
        finally:
            found.stop()

    def cri(self) -> Cri:
        """A client that does what a kubelet does."""
        return Cri(self.socket, f"/{_NAMESPACE}")

    def blobs(self) -> int:
        """How many blobs of images are here."""
        return len(self.ctr("content", "ls", "--quiet").split())

    def shims(self) -> list[int]:
        """The processes that look after its containers."""
        return [
            int(place.name)
            for place in Path("/proc").iterdir()
            if place.name.isdigit()
            and _arguments(place)[:1] == [b"/usr/bin/containerd-shim-runc-v2"]
            and os.fsencode(self.socket) in b"".join(_arguments(place))
        ]

    def inside(self) -> list[str]:
        """The words before a command in containerd's namespaces. Raises LookupError: it does not run."""
        return ["nsenter", f"--target={first_child(self.pid)}", "--mount", "--pid", "--root", "--wd=/"]

    def _ctr(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self.inside(), "/usr/bin/ctr", "--address", f"{self.directory}/c.sock", *words],
            capture_output=True,
            check=False,
            timeout=self.patience,
            env={**os.environ, "TMPDIR": str(self.directory), "CONTAINERD_NAMESPACE": _NAMESPACE},
        )


def _arguments(process: Path) -> list[bytes]:
    """The command line of a process; none if it has ended."""
    with suppress(OSError):
        return (process / "cmdline").read_bytes().split(b"\0")
    return []


class Docker:
    """A dockerd that uses ``engine`` with a snapshotter, and its command line. Its files lie in ``place``.

    Containers outlive it (live-restore).
    """

    patience = _PATIENCE
    """Seconds that a command may take."""

    def __init__(self, engine: Containerd, place: Path, installation: Installation, snapshotter: str) -> None:
        self.log = place / "log"
        self.roots = place / "data/rootfs"
        self._place = place
        self._engine = engine
        self._client = [*installation.client(), f"--host=unix://{place}/docker.sock"]
        self._daemon = [
            *("/usr/sbin/dockerd", f"--containerd={engine.socket}", f"--storage-driver={snapshotter}"),
            *(f"--config-file={place}/daemon.json", f"--host=unix://{place}/docker.sock"),
            *(f"--data-root={place}/data", f"--exec-root={place}/exec", f"--pidfile={place}/docker.pid"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--insecure-registry=127.0.0.0/8"),
            *(f"--cgroup-parent=/{_NAMESPACE}", "--live-restore"),
        ]
        features = {"features": {"containerd-snapshotter": True}}
        (place / "daemon.json").write_text(json.dumps(features))

    def __call__(self, *words: str, **environment: str) -> str:
        """Run the client; returns what it prints."""
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

    def succeeds(self, *words: str) -> bool:
        """Run the client; whether it succeeds."""
        return self._run(*words).returncode == 0

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self._place / "docker.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = [*self._engine.inside(), *self._daemon]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: self.succeeds("version"), self._process, "dockerd", self.log)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        with suppress(LookupError):
            os.kill(first_child(self._process.pid), number)
        self._process.wait(_PATIENCE)

    def crash(self) -> None:
        """After a crash of its containerd, and of the machine: what lies in /run is gone."""
        self._process.wait(_PATIENCE)
        shutil.rmtree(self._place / "exec", ignore_errors=True)

    def kill_daemon(self) -> None:
        """Kill it, and start it again."""
        self.stop(signal.SIGKILL)
        self.start()

    def _run(
        self, *words: str, given: bytes = b"", environment: Mapping[str, str] = {}
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self._client, *words],
            input=given,
            capture_output=True,
            check=False,
            timeout=self.patience,
            env={**os.environ, **environment},
        )


@contextmanager
def containerd(
    directory: Path, socket: Path, state: Path, installation: Installation, pause: str = "no/pause:1"
) -> Iterator[Containerd]:
    """A running containerd, which is stopped with its containers."""
    engine = Containerd(directory, socket, state, installation, pause)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
