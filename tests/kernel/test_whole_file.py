"""Whole files: all of the content or none, whatever happens while it is written."""

import os
import stat
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.whole_file import whole_file, write_whole_file


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_created_and_replaced(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "file"
    write_whole_file(path, b"first", durable=durable)
    write_whole_file(path, b"second", 0o600, durable=durable)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with whole_file(path) as descriptor:
            os.write(descriptor, b"half")
            assert path.read_bytes() == b"old"
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_temporary_file_may_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "txn").mkdir()
    with whole_file(tmp_path / "file", scratch=f"{tmp_path}/txn") as descriptor:
        os.write(descriptor, b"content")
        assert len(os.listdir(tmp_path / "txn")) == 1
    assert os.listdir(tmp_path / "txn") == []
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    write_whole_file(tmp_path / "link", b"content")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert not (tmp_path / "link").is_symlink()


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole_file(tmp_path / "none" / "file", b"")
