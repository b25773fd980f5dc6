import gzip
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.errors import OutputError
from cvmfs_graphdriver.conversion.pull import pull_layers
from cvmfs_graphdriver.oci.errors import OciError, UnsupportedImageError
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.model import MediaType
from cvmfs_graphdriver.oci.image.source import load_image
from tests.support.images import TestLayer, write_layout
from tests.support.tars import tar_of
from tests.support.watcher import Watcher

_LAYERS = [
    TestLayer(tar_of({"a": b"1"})),
    TestLayer(tar_of({"b": os.urandom(3 << 20)}), "zstd"),
    TestLayer(tar_of({"c": b"3"}), "plain"),
]


@pytest.fixture
def source(tmp_path: Path) -> LayoutImage:
    write_layout(tmp_path / "layout", [*_LAYERS, _LAYERS[0]])
    return LayoutImage(tmp_path / "layout")


def _pull(source: LayoutImage, directory: Path) -> tuple[list[Path], Watcher]:
    progress = Watcher()
    return pull_layers(source, load_image(source, None), directory, progress), progress


def test_every_layer_is_a_file_that_stock_tools_can_unpack(tmp_path: Path, source: LayoutImage) -> None:
    files, _ = _pull(source, tmp_path / "out")
    order = [_LAYERS[1], _LAYERS[2], _LAYERS[0]]
    assert [file.name for file in files] == [f"{layer.digest[7:]}.tar.gz" for layer in order]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(file.name for file in files)
    for file, layer in zip(files, order, strict=True):
        assert gzip.decompress(file.read_bytes()) == layer.tar
        subprocess.run(["tar", "-tzf", file], check=True, capture_output=True)
    # What is gzip is kept to the byte, so its name proves it.
    assert hashlib.sha256(files[2].read_bytes()).hexdigest() == files[2].name[:64]


def test_files_that_are_there_are_not_fetched_again(tmp_path: Path, source: LayoutImage) -> None:
    files, _ = _pull(source, tmp_path / "out")
    files[0].unlink()
    again, progress = _pull(source, tmp_path / "out")
    assert again == files
    assert progress.begun == [_LAYERS[1].digest]


def test_a_layer_that_lies_leaves_no_file(tmp_path: Path, source: LayoutImage) -> None:
    for layer in _LAYERS:
        blob = source.directory / "blobs/sha256" / layer.digest[7:]
        before = blob.read_bytes()
        blob.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        out = tmp_path / f"out-{layer.compression}"
        with pytest.raises(OciError):
            _pull(source, out)
        blob.write_bytes(before)
        assert f"{layer.digest[7:]}.tar.gz" not in os.listdir(out)
        assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_a_foreign_layer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    foreign = TestLayer(tar_of({}), media_type=MediaType.DOCKER_FOREIGN_LAYER_GZIP)
    write_layout(tmp_path / "layout", [_LAYERS[0], foreign])
    with pytest.raises(UnsupportedImageError, match="foreign"):
        _pull(LayoutImage(tmp_path / "layout"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, source: LayoutImage) -> None:
    with pytest.raises(OutputError, match=r"out/deeper: there is no such directory"):
        _pull(source, tmp_path / "out/deeper")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        _pull(source, tmp_path / "file")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.root
def test_a_full_disk_leaves_no_half_file(source: LayoutImage, small_disk: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full: free some space and try again"):
        _pull(source, small_disk)
    assert os.listdir(small_disk) == []
