"""Counting what a directory takes, and not too often."""

import subprocess
from pathlib import Path

from cvmfs_graphdriver.snapshotter.usage import UsageMeter, disk_usage


def test_it_counts_as_du_does(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"x" * 100_000)
    (tmp_path / "a/again").hardlink_to(tmp_path / "a/b/file")
    (tmp_path / "link").symlink_to("/nowhere")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    du = subprocess.run(["du", "-s", "--block-size=1", tmp_path], check=True, capture_output=True)
    assert disk_usage(tmp_path) == (int(du.stdout.split()[0]), 6)


def test_a_directory_that_takes_long_is_counted_seldom(tmp_path: Path) -> None:
    times = iter([0.0, 1.0, 20.9, 21.1, 21.2])
    meter = UsageMeter(lambda: next(times))
    before = meter.of(tmp_path)
    (tmp_path / "new").write_bytes(b"x" * 5000)
    assert meter.of(tmp_path) == before  # counting took one second, and twenty have not passed
    assert meter.of(tmp_path)[1] == before[1] + 1
