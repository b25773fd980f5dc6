import json
from typing import Any

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ImageFormatError, UnsupportedImageError
from cvmfs_graphdriver.oci.image.model import (
    ContentDescriptor,
    Image,
    ImageConfig,
    ImageManifest,
    Index,
    MediaType,
    parse_manifest,
)

_DIGEST = f"sha256:{'a' * 64}"


def _descriptor(media_type: str, **members: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _DIGEST, "size": 7, **members}


def _manifest(**members: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": _descriptor(MediaType.OCI_CONFIG),
        "layers": [_descriptor(MediaType.OCI_LAYER_GZIP)],
        **members,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def _config(**members: Any) -> bytes:
    document = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
        **members,
    }
    return json.dumps(document).encode()


def test_a_manifest_is_read() -> None:
    manifest = parse_manifest("it", _manifest(annotations={"a": "b"}), MediaType.OCI_MANIFEST)
    assert isinstance(manifest, ImageManifest)
    assert manifest.config == ContentDescriptor(MediaType.OCI_CONFIG, ContentDigest.parse(_DIGEST), 7)
    assert [layer.size for layer in manifest.layers] == [7]
    assert manifest.annotations == {"a": "b"}
    assert manifest.digest == ContentDigest.of(manifest.raw)


@pytest.mark.parametrize("came_as", ["", "application/json", "text/plain; charset=utf-8"])
def test_without_a_useful_content_type_the_document_says_what_it_is(came_as: str) -> None:
    assert isinstance(parse_manifest("it", _manifest(), came_as), ImageManifest)
    assert isinstance(parse_manifest("it", _manifest(mediaType=None), came_as), ImageManifest)
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    assert isinstance(parse_manifest("it", index, came_as), Index)


def test_an_index_is_read() -> None:
    children = [
        _descriptor(MediaType.OCI_MANIFEST, platform={"os": "linux", "architecture": "arm", "variant": "v6"}),
        _descriptor(MediaType.OCI_MANIFEST),
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": children}).encode()
    index = parse_manifest("it", data, MediaType.OCI_INDEX)
    assert isinstance(index, Index)
    assert [str(child.platform) for child in index.manifests] == ["linux/arm/v6", "None"]


@pytest.mark.parametrize(
    ("data", "came_as", "reason"),
    [
        (_manifest(manifests=[]), "", "both an image and an index"),
        (_manifest(), MediaType.DOCKER_MANIFEST, "calls itself"),
        (_manifest(), MediaType.OCI_INDEX, "calls itself"),
        (_manifest(schemaVersion=3), "", "schemaVersion"),
        (_manifest(schemaVersion=None), "", "schemaVersion"),
        (_manifest(config=None), "", "config is not a JSON object"),
        (_manifest(layers={}), "", "not a list"),
        (_manifest(layers=[_descriptor("x", size=-1)]), "", r"layers\[0\]: 'size'"),
        (_manifest(layers=[_descriptor("x", size=1.5)]), "", "'size'"),
        (_manifest(layers=[_descriptor("x", digest="sha256:../../x")]), "", "not a digest"),
        (_manifest(layers=[_descriptor("x", digest="md5:" + "a" * 32)]), "", "not a digest"),
        (_manifest(annotations={"a": 1}), "", "annotations"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, came_as: str, reason: str) -> None:
    with pytest.raises(ImageFormatError, match=f"it.*{reason}"):
        parse_manifest("it", data, came_as)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (_manifest(mediaType="application/vnd.docker.plugin.v1+json"), "unsupported media type"),
        (_manifest(config=_descriptor("application/vnd.docker.plugin.v1+json")), "artifact of another kind"),
    ],
)
def test_what_cannot_be_converted_is_said_to_be(data: bytes, reason: str) -> None:
    with pytest.raises(UnsupportedImageError, match=reason):
        parse_manifest("it", data, "")


@pytest.mark.parametrize(
    ("media_type", "reason"),
    [
        (MediaType.DOCKER_FOREIGN_LAYER_GZIP, "foreign"),
        (MediaType.OCI_FOREIGN_LAYER_ZSTD, "foreign"),
        (MediaType.OCI_LAYER_GZIP + "+encrypted", "unsupported media type"),
        ("application/vnd.in-toto+json", "unsupported media type"),
    ],
)
def test_layers_that_cannot_be_converted_are_named(media_type: str, reason: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"layer {_DIGEST}.*{reason}"):
        ContentDescriptor(media_type, ContentDigest.parse(_DIGEST), 1).require_layer()


@pytest.mark.parametrize(
    "media_type",
    [MediaType.DOCKER_LAYER, MediaType.DOCKER_LAYER_GZIP, MediaType.OCI_LAYER, MediaType.OCI_LAYER_ZSTD],
)
def test_layers_that_can_be_are_taken(media_type: str) -> None:
    ContentDescriptor(media_type, ContentDigest.parse(_DIGEST), 1).require_layer()


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, ImageFormatError),
        ({"rootfs": {"type": "layers", "diff_ids": "x"}}, ImageFormatError),
        ({"rootfs": {"type": "base"}}, UnsupportedImageError),
        ({"rootfs": None}, ImageFormatError),
        ({"os": 1}, ImageFormatError),
        ({"history": ["x"]}, ImageFormatError),
        ({"history": {}}, ImageFormatError),
    ],
)
def test_what_is_no_configuration_is_refused(members: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="it"):
        ImageConfig.parse("it", _config(**members))


def test_manifest_and_configuration_must_agree() -> None:
    manifest = parse_manifest("it", _manifest(layers=[]), "")
    assert isinstance(manifest, ImageManifest)
    with pytest.raises(ImageFormatError, match="contradicts itself.*0 layers.*1"):
        Image.of("it", manifest, ImageConfig.parse("it", _config()))
