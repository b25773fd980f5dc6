"""The installer of the image on a node's root directory, killed at any instant: the next run completes it.

Nothing is started: the node's systemd does not run.
"""

import filecmp
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mount import UmountFlag, bind, mount, umount
from tests.support.snapshotter_image import ARCHIVE, NODE, need_snapshotter_image, unpack_snapshotter_image

pytestmark = [pytest.mark.root]

_KILLS = int(os.environ.get("KILLS", "12"))
_LONGEST = 1.5
"""Seconds after which one is killed at the latest; it takes about as long."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A node's root directory within that of the image, with this machine's processes."""
    need_snapshotter_image()
    image, upper, work = (tmp_path / name for name in ("image", "upper", "work"))
    for place in (image, upper, work):
        place.mkdir()
    unpack_snapshotter_image(ARCHIVE, image)
    found = image / "host"
    with ExitStack() as mounts:
        mount("overlay", found, "overlay", data=f"lowerdir={NODE},upperdir={upper},workdir={work}".encode())
        mounts.callback(umount, found, UmountFlag.DETACH)
        bind(Path("/proc"), found / "proc")
        mounts.callback(umount, found / "proc", UmountFlag.DETACH)
        yield found


def start(host: Path, *words: str) -> "subprocess.Popen[str]":
    program = ["chroot", str(host.parent), "/usr/bin/cvmfs-graphdriver", "snapshotter", *words]
    return subprocess.Popen(
        [*program, "--engine=containerd", "--no-start"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )


def complete(host: Path, *words: str) -> str:
    with start(host, *words) as process:
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    return said


def configuration(host: Path) -> dict[str, bytes]:
    places = [*(host / "etc").rglob("*cvmfs*"), *(host / "etc/containerd").rglob("*")]
    return {str(path.relative_to(host)): path.read_bytes() for path in places if path.is_file()}


def test_it_may_be_killed_at_any_instant(host: Path) -> None:
    before = configuration(host)
    choose = random.Random(1)
    places = [host / "etc/containerd/conf.d", host / "opt/cvmfs-snapshotter"]
    for command in ("node-install", "node-uninstall"):
        for _ in range(_KILLS):
            process = start(host, command)
            time.sleep(choose.uniform(0, _LONGEST))
            process.kill()
            process.communicate()
            # A version is there as a whole, or not.
            for version in (path for path in places[1].glob("[0-9]*") if path.is_dir()):
                assert (version / "bin/cvmfs-graphdriver").exists()
                assert (version / "usr/share/doc/cvmfs-graphdriver/bom.cdx.json").exists()
        complete(host, command)
        if command == "node-install":
            (version,) = places[1].glob("[0-9]*")
            assert {path.name for path in places[1].iterdir()} == {version.name, "current"}
            assert not list(places[0].glob(".new-*"))
            same = filecmp.dircmp(version, host.parent / version.relative_to(host))
            assert not [*same.left_only, *same.right_only, *same.diff_files, *same.funny_files]
            after = configuration(host)
            assert b"cvmfs-snapshotter" in after["etc/containerd/config.toml"]
            complete(host, command)
            assert configuration(host) == after
    assert configuration(host) == before
    assert not places[1].exists()


def test_a_service_that_is_not_told_its_repositories_is_not_written_over(host: Path) -> None:
    """What an administrator configured on the node stays, and the log says so."""
    place = host / "etc/cvmfs-snapshotter/config.toml"
    place.parent.mkdir()
    place.write_text('repositories = ["theirs.example.org"]\n')
    given = host.parent / "tmp/given/cvmfs-snapshotter"
    given.mkdir(parents=True)
    (given / "config.toml").write_text('repositories = ["ours.example.org"]\n')
    said = complete(host, "node-install", "--configuration=/tmp/given")
    assert "/etc/cvmfs-snapshotter/config.toml was written by somebody else and is left alone" in said
    assert "theirs" in place.read_text()
