"""Order of units, room on the disk, who serves: against scratch directories and a running snapshotter."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.client.administration.checkup import Level
from cvmfs_graphdriver.planes.choice import Choice
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.doctor.host import check_kernel, check_state, check_unit
from cvmfs_graphdriver.snapshotter.installation.unit import unit
from tests.support.published import FQRN, published
from tests.support.snapshotter_process import snapshotter

UNITS = "etc/systemd/system"
NAME = "cvmfs-snapshotter.service"


def levels(root: Path) -> list[Level]:
    return [each.level for each in check_unit(root)]


def test_the_order_of_units(tmp_path: Path) -> None:
    assert levels(tmp_path) == [Level.WARNING]
    wants = tmp_path / UNITS / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (tmp_path / UNITS / NAME).write_bytes(unit("/usr/bin/cvmfs-graphdriver"))
    assert levels(tmp_path) == [Level.OK, Level.ERROR], "it is not enabled"
    (wants / NAME).symlink_to(f"../{NAME}")
    (tmp_path / "lib/systemd/system").mkdir(parents=True)
    (tmp_path / "lib/systemd/system/docker.service").touch()
    (found,) = check_unit(tmp_path)
    assert (found.level, found.what) == (Level.OK, f"{NAME} starts before docker.service")
    (tmp_path / UNITS / NAME).write_text("[Unit]\nBefore=containerd.service\n")
    (late,) = check_unit(tmp_path)
    assert (late.level, late.remedy) == (Level.ERROR, "add Before=docker.service to it")


def test_file_systems_and_planes(tmp_path: Path) -> None:
    (room,) = check_state(SnapshotterConfiguration(state=tmp_path / "not/yet/there"))
    assert "MiB are free for" in room.what
    unfit = check_state(SnapshotterConfiguration(state=Path("/proc/none")))
    assert all(each.remedy for each in unfit if each.level is not Level.OK)
    (plane,) = check_kernel(SnapshotterConfiguration(data_plane=Choice.FUSE))
    assert plane.level is Level.OK


@pytest.mark.root
def test_a_running_snapshotter_is_examined_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    online = ExitStack()
    repository = online.enter_context(published(tmp_path / "repository"))
    with online, snapshotter(tmp_path, [FQRN], repository.etc) as running:
        before = state_of(tmp_path)
        found = examine(running.file)
        assert state_of(tmp_path) == before
        good = [each["what"] for each in found if each["level"] == "ok"]
        assert f"{running.file} has no mistakes" in good
        assert f"the snapshotter runs (process {running.process.pid})" in good
        assert "revision 1 is verified" in good
        online.close()
        running.stop()
        bad = {each["what"]: each["remedy"] for each in examine(running.file) if each["level"] == "error"}
        assert bad[f"nobody serves {running.socket}"] == "systemctl restart cvmfs-snapshotter"
        assert any("127.0.0.1" in what for what in bad), bad
        assert all(bad.values())
        running.file.write_text("nonsense = 1\n")
        (only,) = examine(running.file)
        assert "line 1: nonsense: there is no such key" in only["what"]


def examine(file: Path) -> list[dict[str, Any]]:
    program = Path(sys.executable).with_name("cvmfs-graphdriver")
    command: list[str | Path] = [program, "snapshotter", "doctor", "--json", "--config", file]
    done = subprocess.run(command, capture_output=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (97 if any(each["level"] == "error" for each in found) else 0)
    return found


def state_of(directory: Path) -> dict[str, float]:
    """Every file with the time of its last change, but for what a served repository does meanwhile."""
    return {
        str(path): os.lstat(path).st_mtime
        for path in directory.rglob("*")
        if "repository" not in path.parts and not path.name.startswith("log")
    }
