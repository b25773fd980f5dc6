"""``cvmfs-graphdriver mount`` and ``umount`` as users run them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mount_at
from tests.support.fixtures import serve, unpack
from tests.support.mounts import end

pytestmark = pytest.mark.root

PROGRAM = Path(sys.executable).with_name("cvmfs-graphdriver")
FQRN = "sha1-default.test.org"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def etc(tmp_path: Path) -> Iterator[Path]:
    """A configuration for a repository that is being served."""
    repository = unpack("lite-sha1-zlib", tmp_path / "repository")
    with serve(repository.directory) as server:
        repository.settings(server.url, tmp_path)
        yield tmp_path / "etc"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mnt"
    place.mkdir()
    yield place
    end(place)


def test_mount_and_umount(etc: Path, target: Path) -> None:
    done = run("mount", FQRN, target, "--config", etc)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{FQRN} is mounted at {target}\n"
    assert os.listdir(target)
    assert os.statvfs(target).f_flag & os.ST_NOSUID
    done = run("umount", target)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mount_at(target) is None
    done = run("umount", target)
    assert done.returncode == 51
    assert "no repository is mounted" in done.stderr


def test_options(etc: Path, target: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-cache"
    options = f"ro,nodev,cvmfs_suid,_netdev,CVMFS_CACHE_BASE={other}"
    assert run("mount", FQRN, target, "--config", etc, "-o", options).returncode == 0
    assert not os.statvfs(target).f_flag & os.ST_NOSUID
    assert other.is_dir()
    done = run("mount", FQRN, target, "-o", "nonsense=1")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_busy_mounts_go_lazily(etc: Path, target: Path) -> None:
    assert run("mount", FQRN, target, "--config", etc).returncode == 0
    inside = os.open(target, os.O_RDONLY)
    done = run("umount", target)
    assert done.returncode == 51
    assert "busy" in done.stderr
    assert run("umount", "--lazy", target).returncode == 0
    assert os.listdir(inside)
    os.close(inside)


def test_foreground_ends_with_ctrl_c(etc: Path, target: Path) -> None:
    command = [str(PROGRAM), "mount", "-f", FQRN, str(target), "--config", str(etc)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"{FQRN} is mounted at {target}\n"
        assert os.listdir(target)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert mount_at(target) is None


@pytest.mark.parametrize(
    ("name", "place", "code", "said"),
    [
        ("no.such.repository", "mnt", 24, "no.such.repository"),
        (FQRN, "nowhere", 57, "nowhere"),
        ("not a name", "mnt", 21, "not a name"),
    ],
)
def test_failures_are_one_line_with_a_code(
    etc: Path, target: Path, name: str, place: str, code: int, said: str
) -> None:
    done = run("mount", name, target.parent / place, "--config", etc)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cvmfs-graphdriver: ")
    assert said in line
    assert mount_at(target) is None
