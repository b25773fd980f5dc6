"""skopeo writes the archives as docker save does; what it never writes is made by hand."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import (
    ContentMismatchError,
    ImageFormatError,
    ImageNotFoundError,
    UnsupportedImageError,
)
from cvmfs_graphdriver.oci.image.archive import ArchiveImage
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from tests.support.images import TestLayer, skopeo, write_layout
from tests.support.tars import tar_of

_LAYERS = [TestLayer(tar_of({"a": b"1"})), TestLayer(tar_of({"b": b"2"})), TestLayer(tar_of({"a": b"1"}))]


def _paths(source: ArchiveImage) -> list[bytes]:
    found = []
    for layer in load_image(source, None).layers:
        with source.blob(layer.descriptor) as blob:
            found += [entry.path for entry in LayerStream("x", blob, layer.diff_id)]
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", _LAYERS)
    file = tmp_path / "image.tar"
    skopeo("copy", "--insecure-policy", f"oci:{tmp_path}/layout:latest", f"docker-archive:{file}:r.org/app:1")
    return file


def test_what_docker_save_writes_is_read(archive: Path) -> None:
    source = ArchiveImage(archive)
    image = load_image(source, None)
    assert [str(layer.descriptor.digest) for layer in image.layers] == [layer.diff_id for layer in _LAYERS]
    assert image.config.raw == skopeo("inspect", "--config", "--raw", f"docker-archive:{archive}")
    assert _paths(source) == [b"/a", b"/b", b"/a"]


def test_the_image_is_chosen_by_its_name(archive: Path) -> None:
    assert load_image(ArchiveImage(archive, "r.org/app:1"), None).layers
    with pytest.raises(
        ImageNotFoundError, match=r"choose one with docker-archive:FILE:NAME:TAG from r\.org/app:1"
    ):
        load_image(ArchiveImage(archive, "r.org/app:2"), None)


def _archive(tmp_path: Path, members: dict[str, bytes | tarfile.TarInfo | None], listed: Any = None) -> Path:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [_LAYERS[0].diff_id]},
    }
    images = (
        [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["x/layer.tar"]}] if listed is None else listed
    )
    file = tmp_path / "made.tar"
    file.write_bytes(
        tar_of(
            {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(images).encode(), **members}
        )
    )
    return file


def _link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("x/layer.tar")
    member.type, member.linkname = kind, target
    return member


def test_layers_may_be_links_within_the_archive(tmp_path: Path) -> None:
    for member in (_link(tarfile.SYMTYPE, "../y/layer.tar"), _link(tarfile.LNKTYPE, "y/layer.tar")):
        file = _archive(tmp_path, {"y/layer.tar": _LAYERS[0].tar, "x/layer.tar": member})
        assert _paths(ArchiveImage(file)) == [b"/a"]


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "layer.tar", "../x/layer.tar"])
def test_links_lead_nowhere_else(tmp_path: Path, target: str) -> None:
    file = _archive(tmp_path, {"x/layer.tar": _link(tarfile.SYMTYPE, target)})
    with pytest.raises(ImageFormatError, match="has no file 'x/layer.tar'"):
        load_image(ArchiveImage(file), None)


def test_newer_archives_name_blobs_by_their_digests(tmp_path: Path) -> None:
    layer = _LAYERS[0]
    path = f"blobs/sha256/{layer.digest[7:]}"
    images = [{"Config": "c.json", "RepoTags": None, "Layers": [path]}]
    source = ArchiveImage(_archive(tmp_path, {path: layer.blob}, images))
    assert str(load_image(source, None).layers[0].descriptor.digest) == layer.digest
    assert _paths(source) == [b"/a"]


def test_a_layer_that_lies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContentMismatchError):
        _paths(ArchiveImage(_archive(tmp_path, {"x/layer.tar": _LAYERS[1].tar})))


@pytest.mark.parametrize(
    "images",
    [
        {},
        [1],
        [{"Config": 1, "Layers": []}],
        [{"Config": "c.json", "Layers": ["x/layer.tar"] * 2}],
        [{"Config": "c.json", "Layers": "x"}],
        [{"Config": "../c.json", "Layers": ["x/layer.tar"]}],
    ],
)
def test_a_list_of_nonsense_is_refused(tmp_path: Path, images: Any) -> None:
    file = _archive(tmp_path, {"x/layer.tar": _LAYERS[0].tar}, images)
    with pytest.raises(ImageFormatError):
        load_image(ArchiveImage(file), None)


def test_several_images_need_a_choice(tmp_path: Path) -> None:
    one = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["x/layer.tar"]}
    images = [one, {**one, "RepoTags": ["other:1", "not A name"]}]
    file = _archive(tmp_path, {"x/layer.tar": _LAYERS[0].tar}, images)
    assert load_image(ArchiveImage(file, "docker.io/library/other:1"), None).layers
    with pytest.raises(ImageNotFoundError, match="docker.io/library/app:1, docker.io/library/other:1"):
        load_image(ArchiveImage(file), None)


def test_what_is_no_archive_is_said_to_be(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(ImageNotFoundError, match="No such file"):
        load_image(ArchiveImage(tmp_path / "none"), None)
    for data in (gzip.compress(archive.read_bytes()), b"x" * 5000):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(UnsupportedImageError, match="if it is compressed, decompress it"):
            load_image(ArchiveImage(tmp_path / "bad"), None)
    (tmp_path / "empty").write_bytes(tar_of({}))
    with pytest.raises(ImageFormatError, match="has no file 'manifest.json'"):
        load_image(ArchiveImage(tmp_path / "empty"), None)


def test_a_manifest_is_made_up_the_same_way_each_time(archive: Path) -> None:
    first, again = ArchiveImage(archive).root(), ArchiveImage(archive).root()
    assert first == again
    with pytest.raises(ImageNotFoundError):
        ArchiveImage(archive).manifest(first.config)
    with pytest.raises(ImageNotFoundError):
        ArchiveImage(archive).blob(first.config)
    assert first.config.digest == ContentDigest.of(load_image(ArchiveImage(archive), None).config.raw)
