"""On a machine with upstream's Docker, nothing that is installed is removed.

The machine is a root directory of Debian, made once and kept below ``build/``, in which packages called
``docker-ce`` and ``containerd.io`` conflict with Debian's as upstream's do. Each test puts an overlay on it.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.project import PROJECT

_RECORDS = ("var/cache/apt/", "var/lib/apt/lists/", "var/log/apt/")
_LOG = "project/build/install-packages.log"
pytestmark = pytest.mark.root

_PATIENCE = 300
_UPSTREAM = {"docker-ce": "docker.io, docker", "containerd.io": "containerd, runc"}
_COPIED = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "scripts", "packaging", "demo")
_ENTER = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
cd "$4"
shift 4
exec chroot . env http_proxy="$PROXY" "$@"
"""


def dummy_package(name: str, conflicts: str, work: Path) -> Path:
    """A package without files that conflicts with others, and takes their place."""
    (work / name / "DEBIAN").mkdir(parents=True)
    (work / name / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 5:27.0.1-1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
        f"Conflicts: {conflicts}\nReplaces: {conflicts}\nProvides: {conflicts}\nDescription: dummy\n"
    )
    subprocess.run(["dpkg-deb", "--build", work / name, work], check=True, stdout=subprocess.DEVNULL)
    return next(work.glob(f"{name}_*.deb"))


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal Debian 12 with make, package lists and upstream's Docker."""
    root = PROJECT / "build" / "root-with-docker-ce"
    if not root.is_dir():
        work = tmp_path_factory.mktemp("packages")
        packages = [dummy_package(name, conflicts, work) for name, conflicts in _UPSTREAM.items()]
        new = root.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(exist_ok=True)
        subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"]
            + ["--include=make", "--skip=cleanup/apt/lists"]
            + [f"--customize-hook=copy-in {package} /root" for package in packages]
            + ['--customize-hook=chroot "$1" sh -c "dpkg --install /root/*.deb && rm /root/*.deb"']
            + ["--customize-hook=echo 'Acquire::Retries 0;' >$1/etc/apt/apt.conf.d/no-retries"]
            + ["bookworm", str(new)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        new.rename(root)
    return root


@dataclass(frozen=True)
class Machine:
    """What is changed on it is found below ``changed``."""

    lower: str
    changed: Path

    def start(self, *command: str, proxy: str = "") -> subprocess.Popen[str]:
        work, root = self.changed.parent / "work", self.changed.parent / "root"
        return subprocess.Popen(
            [
                "unshare",
                "--mount",
                "sh",
                "-euc",
                _ENTER,
                "sh",
                self.lower,
                self.changed,
                work,
                root,
                *command,
            ],
            env={"PATH": os.environ["PATH"], "PROXY": proxy},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self, *command: str, proxy: str = "") -> subprocess.CompletedProcess[str]:
        with self.start(*command, proxy=proxy) as process:
            output, errors = process.communicate(timeout=_PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def installed(self) -> str:
        return self.run("dpkg", "-l").stdout

    def changes(self) -> set[str]:
        """Files that were made, changed or removed, without apt's own records."""
        found = (str(path.relative_to(self.changed)) for path in self.changed.rglob("*") if not path.is_dir())
        return {path for path in found if not path.startswith(_RECORDS)}


@pytest.fixture
def machine(debian: Path, tmp_path: Path) -> Machine:
    for name in ("changed", "work", "root"):
        (tmp_path / name).mkdir()
    project = tmp_path / "lower" / "project"
    project.mkdir(parents=True)
    for name in _COPIED:
        subprocess.run(["cp", "-a", PROJECT / name, project], check=True)
    return Machine(f"{project.parent}:{debian}", tmp_path / "changed")


@contextmanager
def nobody() -> Iterator[str]:
    """The address of a proxy that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def test_the_demo_leaves_upstreams_docker_alone(machine: Machine) -> None:
    before = machine.installed()
    assert "docker-ce" in before
    with nobody() as proxy:  # where Debian can be reached, the demo does not need this machine's Docker
        demo = machine.run("make", "-C", "/project", "demo", proxy=proxy)
    assert demo.returncode != 0
    fallback, message = demo.stderr.splitlines()[:2]
    assert fallback.startswith("run-demo: Docker 28 or later cannot be had here (Debian testing cannot be ")
    assert message.startswith("install-packages: apt would remove or downgrade containerd.io docker-ce ")
    assert "make demo DOCKER_ROOT=build/docker-26.1" in message
    assert machine.installed() == before
    assert machine.changes() == set()


def test_building_the_plugin_needs_no_docker_and_a_failure_names_the_log(machine: Machine) -> None:
    before = machine.installed()
    with nobody() as proxy:
        plugin = machine.run("make", "-C", "/project", "plugin", proxy=proxy)
    assert plugin.returncode != 0
    message = plugin.stderr.splitlines()[0]
    assert message.startswith("install-packages: apt-get install python3-venv mmdebstrap ")
    assert message.endswith(f"failed; see /{_LOG}")
    assert "127.0.0.1" in (machine.changed / _LOG).read_text()
    assert machine.installed() == before
    assert not (machine.changed / "usr/sbin/policy-rc.d").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_no_policy(number: signal.Signals, machine: Machine) -> None:
    policy = machine.changed / "usr/sbin/policy-rc.d"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(_PATIENCE)
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with machine.start("/project/scripts/install-packages", "plugin", proxy=proxy) as process:
            connection, _ = silent.accept()
            assert policy.exists()
            os.killpg(process.pid, number)
            process.communicate(timeout=_PATIENCE)
            connection.close()
    assert process.returncode != 0
    assert not policy.exists()
