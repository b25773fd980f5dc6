"""``mount -t cvmfs``, with mount(8) itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mount_at
from tests.cli.test_mount import FQRN, PROGRAM
from tests.support.fixtures import serve, unpack
from tests.support.mounts import end

pytestmark = pytest.mark.root

HELPER = PROGRAM.with_name("mount.cvmfs")
_IN_A_NAMESPACE = """
over() { mount -t overlay -o "lowerdir=$1:$2" overlay "$2"; }
over "$1/sbin" /usr/sbin && over "$1/etc" /etc || exit 99
shift
exec "$@"
"""
"""Its helper and its configuration are where mount(8) looks for them, for nobody but this process."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    repository = unpack("lite-sha1-zlib", tmp_path / "repository")
    with serve(repository.directory) as server:
        repository.settings(server.url, tmp_path)
        (tmp_path / "root/sbin").mkdir(parents=True)
        (tmp_path / "root/sbin/mount.cvmfs").symlink_to(HELPER)
        (tmp_path / "root/etc").mkdir()
        (tmp_path / "etc").rename(tmp_path / "root/etc/cvmfs")
        (tmp_path / "mnt").mkdir()
        yield tmp_path
        end(tmp_path / "mnt")


def run(place: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", _IN_A_NAMESPACE, "sh", place / "root", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_mount_calls_it(place: Path) -> None:
    target = place / "mnt"
    script = f"mount -v -t cvmfs -o nodev,_netdev {FQRN} {target} && ls -A {target} && umount {target}"
    done = run(place, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    said, _, listed = done.stdout.partition("\n")
    assert said == f"{FQRN} is mounted at {target}"
    assert listed.split()
    assert mount_at(target) is None


def test_a_line_in_fstab(place: Path) -> None:
    target = place / "mnt"
    (place / "root/etc/fstab").write_text(f"{FQRN} {target} cvmfs defaults,noauto,CVMFS_TIMEOUT=9 0 0\n")
    done = run(place, "sh", "-c", f"mount {target} && getfattr -n user.timeout --only-values {target}")
    assert (done.returncode, done.stdout) == (0, "9"), done.stderr


def test_failures_have_the_codes_of_mount(place: Path) -> None:
    done = run(place, "mount", "-t", "cvmfs", "unknown.example.org", place / "mnt")
    assert done.returncode == 32
    assert done.stderr.startswith("mount.cvmfs: no server has the repository unknown.example.org")
    done = run(place, "mount", "-t", "cvmfs", "-o", "nonsense", FQRN, place / "mnt")
    assert done.returncode == 1
    assert "nonsense" in done.stderr


def test_it_can_be_asked_what_it_would_do(place: Path) -> None:
    done = run(place, "mount", "-f", "-v", "-t", "cvmfs", FQRN, place / "mnt")
    assert done.returncode == 0, done.stderr
    assert mount_at(place / "mnt") is None
