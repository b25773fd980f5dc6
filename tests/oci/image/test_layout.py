import hashlib
import json
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.errors import (
    ContentMismatchError,
    ImageFormatError,
    ImageNotFoundError,
    OciError,
)
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.oci.verify import read_to_end
from tests.support.images import TestLayer, write_layout
from tests.support.tars import tar_of

_LAYERS = [TestLayer(tar_of({"a": b"1"})), TestLayer(tar_of({"b": b"2"}), "zstd")]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", _LAYERS)
    return tmp_path / "layout"


def test_an_image_is_read_whole(layout: Path) -> None:
    source = LayoutImage(layout, "latest")
    image = load_image(source, None)
    found = []
    for layer in image.layers:
        with source.blob(layer.descriptor) as blob:
            found += [entry.path for entry in LayerStream("x", blob, layer.diff_id)]
    assert found == [b"/a", b"/b"]
    assert image.origin == f"oci:{layout}:latest@{image.manifest.digest}"


def test_the_tag_may_be_left_out_where_there_is_one_image(layout: Path) -> None:
    assert (
        load_image(LayoutImage(layout), None).layers == load_image(LayoutImage(layout, "latest"), None).layers
    )
    write_layout(layout, _LAYERS[:1], tag="other")
    with pytest.raises(ImageNotFoundError, match=r"holds 2 images; choose one with oci:DIR:TAG"):
        load_image(LayoutImage(layout), None)
    assert len(load_image(LayoutImage(layout, "other"), None).layers) == 1
    with pytest.raises(ImageNotFoundError, match="there is no image.*the layout holds latest, other"):
        load_image(LayoutImage(layout, "third"), None)


def test_a_layout_for_several_platforms_is_an_index(layout: Path) -> None:
    write_layout(layout, _LAYERS[:1], architecture="arm64")
    assert len(load_image(LayoutImage(layout), Platform.parse("arm64")).layers) == 1
    assert len(load_image(LayoutImage(layout), Platform.parse("amd64")).layers) == 2


@pytest.mark.parametrize("index", ["{}", "[]", '{"schemaVersion": 2, "manifests": [{}]}', '{"layers": []}'])
def test_an_index_that_is_none_is_refused(layout: Path, index: str) -> None:
    (layout / "index.json").write_text(index)
    with pytest.raises(OciError):
        load_image(LayoutImage(layout), None)


def test_no_layout_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match=r"index\.json: No such file"):
        load_image(LayoutImage(tmp_path), None)


def test_a_document_that_is_too_long_is_refused(layout: Path) -> None:
    with (layout / "index.json").open("ab") as file:
        file.truncate(5 << 20)
    with pytest.raises(ImageFormatError, match="exceeds the limit"):
        load_image(LayoutImage(layout), None)


def test_tampering_is_an_error(layout: Path) -> None:
    source = LayoutImage(layout)
    image = load_image(source, None)
    descriptor = image.layers[0].descriptor
    file = layout / "blobs/sha256" / descriptor.digest.hex
    before = file.read_bytes()
    for data in (before[:-1], bytes([before[0] ^ 1]) + before[1:]):
        file.write_bytes(data)
        with pytest.raises(ContentMismatchError), source.blob(descriptor) as blob:
            read_to_end(blob)
    file.unlink()
    with pytest.raises(ImageNotFoundError, match="is not available"), source.blob(descriptor) as blob:
        read_to_end(blob)
    manifest = layout / "blobs/sha256" / image.manifest.digest.hex
    manifest.write_bytes(manifest.read_bytes().replace(b"tests", b"pests"))
    with pytest.raises(ContentMismatchError, match="the manifest of oci:"):
        load_image(source, None)


def test_a_configuration_that_claims_to_be_huge_is_not_read(layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    manifest = layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    document = json.loads(manifest.read_text())
    document["config"]["size"] = 1 << 40
    write = json.dumps(document).encode()
    digest = hashlib.sha256(write).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(write)
    index["manifests"][0].update(digest=f"sha256:{digest}", size=len(write))
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageFormatError, match="claims 1099511627776 bytes"):
        load_image(LayoutImage(layout), None)
