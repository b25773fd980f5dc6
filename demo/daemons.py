"""Real daemons of our own, on loopback and in a scratch directory, that are always stopped.

Owns: starting, waiting for, and stopping a docker-registry and a dockerd. The system's Docker is not
touched: data root, sockets, pid files and containerd are all below the scratch directory. Must not know:
what they are used for.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from cvmfs_graphdriver import __version__
from demo.containment import contained
from demo.installation import HERE, Installation

__all__ = [
    "RESTARTED",
    "DaemonError",
    "DockerClient",
    "DockerEngine",
    "end_on_signals",
    "first_child",
    "free_port",
    "plugin_tarball",
    "process_named",
    "registry",
    "remove_cgroups",
    "running",
    "wait_for",
]

_PATIENCE = 60.0
_LONGEST = 600.0
"""Seconds that a docker command may take."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESTARTED = """
trap 'kill -TERM $daemon' TERM
while :; do
    "$@" & daemon=$!
    status=0
    wait $daemon || status=$?
    while kill -0 $daemon 2>/dev/null; do status=0; wait $daemon || status=$?; done
    [ $status = 137 ] || exit $status
done
"""
"""The end of a shell script whose arguments are a daemon, which is started again if it is killed."""
_PRIVATE = (
    """
mount --bind "$1" /etc/docker
for name in subuid subgid; do [ ! -e "$1/$name" ] || mount --bind "$1/$name" "/etc/$name"; done
mkdir -p /run/docker /run/containerd
mount -t tmpfs tmpfs /run/docker
mount -t tmpfs tmpfs /run/containerd
shift
"""
    + RESTARTED
)
"""Gives dockerd, in its own mount namespace, its own copy of what it keeps at fixed paths."""


class DaemonError(Exception):
    """A daemon did not start, or a docker command failed."""


@contextlib.contextmanager
def end_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, once: clean-up is not interrupted again."""

    def stop(number: int, _: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """A loopback port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A contained process, terminated when the block ends."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            contained(*command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,  # dockerd, for a plugin whose root it does not know yet, makes a directory there
            env={**os.environ, "TMPDIR": str(log.parent)},  # containerd, killed, writes a file there
        )
    try:
        yield process
    finally:
        try:
            os.kill(first_child(process.pid), signal.SIGTERM)
            process.wait(_PATIENCE / 2)
        except (LookupError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()


def first_child(pid: int) -> int:
    """The first process in the namespaces of a contained one. Raises LookupError: there is none (yet)."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except OSError as error:
        raise LookupError(pid) from error


def process_named(name: str, ancestor: int) -> int:
    """The process of this name below another. Raises DaemonError: there is none."""
    waiting = [ancestor]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/comm").read_text().strip() == name:
                return process
            for children in Path(f"/proc/{process}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
    raise DaemonError(f"there is no {name} below process {ancestor}")


@contextlib.contextmanager
def registry(scratch: Path, *, port: int = 0) -> Iterator[str]:
    """Debian's docker-registry; gives its ``host:port``."""
    address = f"127.0.0.1:{port or free_port()}"
    directory = scratch / "registry"
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.json"
    settings = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    log = directory / "log"
    with running(["docker-registry", "serve", str(config)], log) as process:
        wait_for(lambda: _answers(f"http://{address}/v2/"), process, "docker-registry", log)
        yield address


def plugin_tarball(project: Path) -> Path:
    """The plugin as ``make plugin`` built it, and as administrators get it."""
    tarball = project / "build" / f"cvmfs-graphdriver-plugin-{__version__}.tar.gz"
    if not tarball.is_file():
        raise DaemonError(f"{tarball} does not exist: run 'make plugin' first")
    return tarball


class DockerClient(ABC):
    """The docker command with a dockerd of our own, whose files are below ``directory``."""

    directory: Path

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def docker(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run the docker command; returns what it prints. Raises DaemonError with its error message."""
        return self.docker_bytes(*arguments, stdin=stdin).decode("utf-8", "replace").strip()

    def docker_bytes(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """The same, not decoded."""
        command = [*self._client(), "--config", str(self.directory / "client")]
        command += ["--host", self.host, *arguments]
        try:
            done = subprocess.run(
                command, input=stdin or b"", capture_output=True, check=False, timeout=_LONGEST
            )
        except subprocess.TimeoutExpired as error:
            raise DaemonError(
                f"docker {' '.join(arguments)[:200]}: not finished after {_LONGEST:.0f} s"
            ) from error
        if done.returncode != 0:
            complaint = done.stderr.decode("utf-8", "replace").strip()
            complaint = complaint or f"ended with status {done.returncode} and said nothing"
            raise DaemonError(f"docker {' '.join(arguments)[:200]}: {complaint}")
        return done.stdout

    def run(
        self, image: str, *command: str, stdin: bytes | None = None, options: tuple[str, ...] = ()
    ) -> bytes:
        """Run a container without network, and remove it."""
        interactive = ("--interactive",) if stdin is not None else ()
        return self.docker_bytes(
            "run", "--rm", "--network", "none", *interactive, *options, image, *command, stdin=stdin
        )

    @abstractmethod
    def _client(self) -> list[str]:
        """The words before those of a ``docker`` command line."""

    def _is_up(self) -> bool:
        try:
            self.docker("version", "--format", "{{.Server.Version}}")
        except DaemonError:
            return False
        return True


class DockerEngine(DockerClient):
    """A dockerd of our own. Use it in a ``with`` statement; ``start`` may be called again after ``stop``."""

    def __init__(self, scratch: Path, name: str, installation: Installation = HERE) -> None:
        self.directory = scratch / name
        self._installation = installation
        self._cgroup = f"cvmfs-graphdriver-{os.getpid()}-{name}"
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:  # though a signal comes meanwhile
            remove_cgroups(self._cgroup)
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, storage_driver: str, *options: str) -> None:
        """Start it and wait until it answers."""
        config = self.directory / "daemon.json"
        config.write_text("{}")
        command = [
            *self._installation.daemon("sh", "-euc", _PRIVATE, "sh", str(self._own_etc())),
            *("--config-file", str(config)),
            *("--data-root", str(self.directory / "data"), "--exec-root", str(self.directory / "exec")),
            *("--host", self.host, "--pidfile", str(self.directory / "docker.pid")),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--experimental"),
            *("--cgroup-parent", f"/{self._cgroup}"),
            *("--insecure-registry", "127.0.0.0/8", "--storage-driver", storage_driver, *options),
        ]
        self._process = self._stack.enter_context(running(command, self.log))
        wait_for(self._is_up, self._process, "dockerd", self.log)

    def stop(self) -> None:
        """Stop it; its layers and plugins stay."""
        self._stack.close()
        self._process = None

    def kill(self) -> None:
        """End it, its containers and its plugins abruptly, as a crash of the machine would.

        What lies in /run is gone after such a crash.
        """
        if self._process is not None:
            self._process.kill()
        self.stop()
        (self.directory / "docker.pid").unlink(missing_ok=True)
        shutil.rmtree(self.directory / "exec", ignore_errors=True)

    def kill_daemon(self) -> None:
        """Kill dockerd alone, and wait until it has been started again."""
        if self._process is None:
            raise DaemonError("no dockerd is running")
        killed = process_named("dockerd", self._process.pid)
        os.kill(killed, signal.SIGKILL)
        while Path(f"/proc/{killed}").exists():
            time.sleep(0.01)
        wait_for(self._is_up, self._process, "dockerd", self.log)

    def start_with_plugin(
        self, tarball: Path, etc: Path, *options: str, name: str = "cvmfs", settings: Sequence[str] = ()
    ) -> None:
        """Install the plugin, which needs a running daemon, and start again with it as storage driver.

        ``settings`` are ``NAME=VALUE`` for the plugin.
        """
        self.start("overlay2")
        self.install_plugin(tarball, etc, name=name, settings=settings)
        self.stop()
        self.start(name, *options)

    def install_plugin(
        self, tarball: Path, etc: Path, *, name: str = "cvmfs", settings: Sequence[str] = ()
    ) -> None:
        """Create, set and enable the plugin in the running daemon."""
        self.create_plugin(tarball, name=name)
        self.enable_plugin(etc, name=name, settings=settings)

    def create_plugin(self, tarball: Path, *, name: str = "cvmfs") -> None:
        """Create the plugin in the running daemon."""
        with tempfile.TemporaryDirectory(dir=self.directory) as plugin:
            subprocess.run(["tar", "--extract", "--file", tarball, "--directory", plugin], check=True)
            self.docker("plugin", "create", name, plugin)

    def enable_plugin(self, etc: Path, *, name: str = "cvmfs", settings: Sequence[str] = ()) -> None:
        """Set and enable a plugin that is there."""
        sources = [f"{mount}.source={etc}" for mount in ("cvmfs_ext_config", "minio_ext_config")]
        self.docker("plugin", "set", name, *sources, *settings)
        self.docker("plugin", "enable", name)

    def remap(self, first: int) -> tuple[str, str]:
        """Let containers have user namespaces whose root is ``first``; returns options for ``start``."""
        self._own_etc()
        for name in ("subuid", "subgid"):
            (self.directory / "etc" / name).write_text(f"daemon:{first}:65536\n")
        return "--userns-remap", "daemon"

    def plugin_home(self) -> Path:
        """The plugin's propagated mount, where its layers and its cache are."""
        (found,) = (self.directory / "data" / "plugins").glob("*/propagated-mount")
        return found

    def driver_home(self) -> Path:
        """Where the plugin keeps its layers: what begins with a dot beside it is the plugin's own."""
        places = self.plugin_home().iterdir()
        (found,) = (path for path in places if path.is_dir() and not path.name.startswith("."))
        return found

    def _client(self) -> list[str]:
        return self._installation.client()

    def _own_etc(self) -> Path:
        """A copy of /etc/docker, where dockerd writes a key; certificates of registries still apply."""
        etc = self.directory / "etc"
        shutil.copytree("/etc/docker", etc, dirs_exist_ok=True)
        return etc


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_for(is_up: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-1500:]
            raise DaemonError(f"{what} did not start; the end of its log:\n{tail}")
        time.sleep(0.05)


def remove_cgroups(name: str) -> None:
    """Remove what Docker made below a control group of ours: of the unified hierarchy, or of each old one.

    A process that has been killed belongs to its group until the kernel is done with it.
    """
    deadline = time.monotonic() + _PATIENCE / 6
    while tops := [top for pattern in (name, f"*/{name}") for top in Path("/sys/fs/cgroup").glob(pattern)]:
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
