"""The configuration file: every key, and messages that lead to the mistake."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from cvmfs_graphdriver.planes.choice import Choice
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.errors import SnapshotterConfigurationError
from tests.support.project import PROJECT

WHOLE = """
# comment
repositories = ["unpacked.cern.ch", "images.example.org"]
state = "/srv/snapshotter"
socket = "/run/s.sock"
cvmfs_config = "/opt/cvmfs"
data_plane = "fuse"
cache_quota = 4000
lookup_timeout = 2.5
remap_ids = true
log_level = "debug"
"""


def test_every_key_is_read() -> None:
    assert SnapshotterConfiguration.parse(WHOLE, "x") == SnapshotterConfiguration(
        ("unpacked.cern.ch", "images.example.org"),
        Path("/srv/snapshotter"),
        Path("/run/s.sock"),
        Path("/opt/cvmfs"),
        Choice.FUSE,
        4000,
        2.5,
        True,
        "debug",
    )
    assert SnapshotterConfiguration.parse("", "x") == SnapshotterConfiguration()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("repository = []", "there is no such key; known are repositories,"),
        ('[snapshotter]\nstate = "/x"', "there is no such key"),
        ('repositories = "unpacked.cern.ch"', 'write a list of names, such as ["unpacked.cern.ch"]'),
        ('repositories = ["/cvmfs/x"]', "'/cvmfs/x' is not a valid name of a repository"),
        ('repositories = ["a", "a"]', "a is listed twice"),
        ('state = "relative"', "write an absolute path in quotes"),
        ('state = "/a:b"', "choose a path without commas, colons"),
        ('state = "/a/../b"', "choose a path without"),
        ("socket = 5", "write an absolute path in quotes"),
        ('data_plane = "ext4"', "'ext4' is not one of auto, fuse, erofs"),
        ("data_plane = []", "[] is not one of auto"),
        ('cache_quota = "4 GB"', "write a number that is at least 1"),
        ("lookup_timeout = 0", "write a number that is at least 0.1"),
        ("lookup_timeout = true", "write a number"),
        ("remap_ids = 1", "write true or false"),
        ('log_level = "loud"', "'loud' is not one of debug"),
    ],
)
def test_a_mistake_is_found_with_its_line(line: str, message: str) -> None:
    with pytest.raises(SnapshotterConfigurationError, match=r"^c\.toml, line 3: ") as failed:
        SnapshotterConfiguration.parse(f"# a comment\n\n{line}\n", "c.toml")
    assert message in str(failed.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SnapshotterConfigurationError, match=r"line 1: state: .*; c, line 2: socket: "):
        SnapshotterConfiguration.parse("state = 1\nsocket = 2\n", "c")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SnapshotterConfigurationError, match="is not valid TOML: .*line 2"):
        SnapshotterConfiguration.parse("\nstate = /x\n", "c")
    with pytest.raises(SnapshotterConfigurationError, match="cannot read .*missing"):
        SnapshotterConfiguration.read(tmp_path / "missing")


def test_the_documentation_has_every_key_with_its_default() -> None:
    text = (PROJECT / "docs/snapshotter.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE))
    assert set(rows) == {field.name for field in fields(SnapshotterConfiguration)}
    (example,) = re.findall(
        r"^```toml\n(# /etc/cvmfs-snapshotter/config.toml\n.*?)```", text, re.MULTILINE | re.DOTALL
    )
    assert SnapshotterConfiguration.parse(example, "docs").repositories
