"""`docker2cvmfs pull` into a directory in which others have put files before."""

import gzip
import os
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.pull import pull_layers
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.source import load_image
from tests.support.images import TestLayer, write_layout
from tests.support.tars import tar_of
from tests.support.watcher import Watcher

LAYER = TestLayer(tar_of({"a": b"1"}))
PLAIN = TestLayer(tar_of({"b": b"2"}), "plain")
NAME = f"{LAYER.digest[7:]}.tar.gz"


@pytest.fixture
def source(tmp_path: Path) -> LayoutImage:
    write_layout(tmp_path / "layout", [LAYER, PLAIN])
    return LayoutImage(tmp_path / "layout")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def pull(source: LayoutImage, directory: Path) -> list[str]:
    """The layers that were fetched."""
    progress = Watcher()
    files = pull_layers(source, load_image(source, None), directory, progress)
    assert {gzip.decompress(file.read_bytes()) for file in files} == {LAYER.tar, PLAIN.tar}
    assert not any(file.is_symlink() for file in files)
    return progress.begun


@pytest.mark.parametrize("planted", [b"", b"no gzip", gzip.compress(b"another layer"), LAYER.tar])
def test_planted_files_are_not_believed(source: LayoutImage, out: Path, planted: bytes) -> None:
    (out / NAME).write_bytes(planted)
    (out / f"{PLAIN.digest[7:]}.tar.gz").write_bytes(PLAIN.tar)
    assert sorted(pull(source, out)) == sorted([LAYER.digest, PLAIN.digest])
    assert pull(source, out) == []


@pytest.mark.parametrize("name", [NAME, f".{NAME}.{os.getpid()}"])
def test_symbolic_links_are_not_followed(source: LayoutImage, out: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (out / name).symlink_to(victim)
    pull(source, out)
    assert victim.read_bytes() == b"precious"


def test_links_to_the_right_content_are_replaced(source: LayoutImage, out: Path, tmp_path: Path) -> None:
    pull(source, tmp_path / "elsewhere")
    (out / NAME).symlink_to(tmp_path / "elsewhere" / NAME)
    assert LAYER.digest in pull(source, out)


def test_a_pipe_is_not_waited_for(source: LayoutImage, out: Path) -> None:
    os.mkfifo(out / NAME)
    pull(source, out)


@pytest.mark.root
def test_files_that_others_can_change_are_replaced(source: LayoutImage, out: Path) -> None:
    pull(source, out)
    os.chown(out / NAME, 12345, 12345)
    assert pull(source, out) == [LAYER.digest]
    (out / NAME).chmod(0o666)
    assert pull(source, out) == [LAYER.digest]
    assert (out / NAME).stat().st_uid == 0


def test_nothing_is_open_to_others_whatever_the_umask(source: LayoutImage, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        pull(source, tmp_path / "new")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "new", tmp_path / "new" / NAME)]
    assert modes == [0o755, 0o644]
