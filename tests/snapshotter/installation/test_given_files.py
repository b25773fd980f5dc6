"""Configuration that a cluster gives to its nodes, and what somebody wrote there."""

import shutil
from pathlib import Path

import pytest

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation.given_files import GivenFiles, read_given

LOCAL = "cvmfs/default.local"
KEY = "cvmfs/keys/example.org/example.org.pub"


def test_files_are_written_and_renewed_and_removed(tmp_path: Path) -> None:
    assert GivenFiles(tmp_path).write({LOCAL: b"1", KEY: b"k"}) == (True, [])
    assert (tmp_path / KEY).read_bytes() == b"k"
    assert GivenFiles(tmp_path).write({LOCAL: b"1", KEY: b"k"}) == (False, [])
    assert GivenFiles(tmp_path).write({LOCAL: b"2"}) == (True, [])
    assert (tmp_path / LOCAL).read_bytes() == b"2"
    assert not (tmp_path / KEY).exists()
    GivenFiles(tmp_path).remove()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_somebody_else_wrote_stays(tmp_path: Path) -> None:
    place = tmp_path / LOCAL
    place.parent.mkdir()
    place.write_bytes(b"theirs")
    assert GivenFiles(tmp_path).write({LOCAL: b"ours"}) == (False, [place])
    GivenFiles(tmp_path).remove()
    assert place.read_bytes() == b"theirs"


@pytest.mark.parametrize("later", [{LOCAL: b"2"}, {}])
def test_what_somebody_changed_since_stays(tmp_path: Path, later: dict[str, bytes]) -> None:
    GivenFiles(tmp_path).write({LOCAL: b"1"})
    (tmp_path / LOCAL).write_bytes(b"theirs")
    changed, foreign = GivenFiles(tmp_path).write(later)
    assert (changed, foreign) == (False, [tmp_path / LOCAL] if later else [])
    GivenFiles(tmp_path).remove()
    assert (tmp_path / LOCAL).read_bytes() == b"theirs"


def test_a_crash_between_list_and_file_is_mended(tmp_path: Path) -> None:
    GivenFiles(tmp_path).write({LOCAL: b"1"})
    shutil.copytree(tmp_path, tmp_path / "before")
    GivenFiles(tmp_path).write({LOCAL: b"2"})
    shutil.copy(tmp_path / "before" / LOCAL, tmp_path / LOCAL)  # the list is new, the file is old
    assert GivenFiles(tmp_path).write({LOCAL: b"3"}) == (True, [])
    assert (tmp_path / LOCAL).read_bytes() == b"3"


def test_a_volume_of_kubernetes_is_read(tmp_path: Path) -> None:
    """Its files are links to a hidden directory, which is replaced as a whole."""
    for name in ("cvmfs", "cvmfs-snapshotter", "..2026_11_30/cvmfs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "..2026_11_30/cvmfs/default.local").write_bytes(b"A=1\n")
    (tmp_path / "..data").symlink_to("..2026_11_30")
    (tmp_path / LOCAL).symlink_to("../..data/cvmfs/default.local")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_bytes(b"not for us")
    assert read_given(tmp_path) == {LOCAL: b"A=1\n"}


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cvmfs").mkdir()
    (tmp_path / LOCAL).write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(InstallationError, match="at most 1 MiB"):
        read_given(tmp_path)
