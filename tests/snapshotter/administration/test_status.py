"""The state of a running snapshotter, and of one that is not running; a repository that is gone."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.planes.choice import obstacle
from tests.support.chains import Image
from tests.support.entries import file
from tests.support.published import FQRN, published
from tests.support.snapshotter_process import SnapshotterProcess, code_of, snapshotter

pytestmark = pytest.mark.root

IMAGE, OTHER = Image("here", 0), Image("elsewhere", 0)


def status(running: SnapshotterProcess, *options: str) -> str:
    program = Path(sys.executable).with_name("cvmfs-graphdriver")
    command: list[str | Path] = [program, "snapshotter", "status", "--config", running.file, *options]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def rows(running: SnapshotterProcess) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in status(running).splitlines())


@pytest.mark.parametrize("plane", ["fuse", "erofs"])
def test_status(tmp_path: Path, plane: str) -> None:
    if plane == "erofs" and (why := obstacle(tmp_path, stacked=True)):
        pytest.skip(why)
    (tmp_path / "repository").mkdir()
    online = ExitStack()
    repository = online.enter_context(published(tmp_path / "repository"))
    files = [file("/first", b"1" * 100), file("/second", b"2")]
    repository.publish(IMAGE.trees([files]) | IMAGE.records([0]))
    with online, snapshotter(tmp_path, [FQRN, "other.example.org"], repository.etc, plane) as running:
        with code_of("ALREADY_EXISTS"):
            running.prepare("1", "", IMAGE.labels(0))
        running.prepare("2", "", OTHER.labels(0))
        found = rows(running)
        assert found["Snapshotter"] == f"serving {running.socket} (process {running.process.pid})"
        assert found["Lazy layers"] == f"1: {FQRN} 1"
        assert found["Pulled layers"].startswith("1: ")
        assert found[f"Repository {FQRN}"].startswith("revision 2, ")
        assert found[f"Whitelist of {FQRN}"].startswith("valid until 20")

        with running.mounted(running.view("view", "1")) as view:
            assert (view / "first").read_bytes() == b"1" * 100
            online.close()
            with pytest.raises(OSError, match="Input/output error"):
                (view / "second").read_bytes()
        running.stop()
        found = rows(running)
        assert found["Snapshotter"].startswith(f"not running: nobody serves {running.socket}")
        assert f"{FQRN}: cannot be read (" in found["Degraded"]
        assert "/layerfs/second: " in found["Degraded"]
        value: dict[str, Any] = json.loads(status(running, "--json"))
        assert (value["pid"], value["lazy"]) == (None, {FQRN: 1})
        assert value["repositories"][0]["counters"]["io_errors"] >= 1
