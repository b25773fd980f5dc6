import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.model import Image
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.oci.image.thin import LayerLocation, ThinImage, ThinLayer
from cvmfs_graphdriver.oci.image.thin_image import ManifestFormat, pack_thin_image
from tests.support.images import CONFIG, TestLayer, skopeo, write_layout
from tests.support.tars import tar_of

_THIN = ThinImage(
    (ThinLayer(ContentDigest("sha256", "a" * 64), LayerLocation("r.example.org", b"/layers/a")),),
    origin="r.org/a@sha256:b",
)


@pytest.fixture
def source(tmp_path: Path) -> Image:
    layers = [TestLayer(tar_of({"a": b"1"})), TestLayer(tar_of({"b": b"2"}))]
    members = {"author": "Zoë", "unknown.member": {"kept": [1, None]}}
    write_layout(tmp_path / "layout", layers, members=members)
    return load_image(LayoutImage(tmp_path / "layout"), None)


def test_the_configuration_is_kept_whole(source: Image) -> None:
    packed = pack_thin_image(source, _THIN, ManifestFormat.DOCKER)
    before, after = json.loads(source.config.raw), json.loads(packed.config)
    assert after["config"] == CONFIG
    changed = {"rootfs", "history"}
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    assert [step.get("empty_layer", False) for step in after["history"]] == [True, True, False]
    assert [step["created_by"] for step in after["history"][:2]] == ["step 0", "step 1"]


def test_the_layer_holds_the_descriptor_alone(source: Image) -> None:
    packed = pack_thin_image(source, _THIN, ManifestFormat.DOCKER)
    tar = gzip.decompress(packed.layer)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        (member,) = archive.getmembers()
        file = archive.extractfile(member)
        assert file is not None
        assert (member.name, member.mode, member.uid, member.gid, member.mtime) == (
            "thin.json",
            0o644,
            0,
            0,
            0,
        )
        assert file.read() == _THIN.dump()
    config, manifest = json.loads(packed.config), json.loads(packed.manifest)
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(tar).hexdigest()]
    for blob, descriptor in ((packed.config, manifest["config"]), (packed.layer, manifest["layers"][0])):
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(blob).hexdigest()
        assert descriptor["size"] == len(blob)


def test_docker_gets_schema_2(source: Image) -> None:
    manifest = json.loads(pack_thin_image(source, _THIN, ManifestFormat.DOCKER).manifest)
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert manifest["layers"][0]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert "annotations" not in manifest


def test_oci_keeps_annotations_and_adds_the_origin(source: Image) -> None:
    manifest = json.loads(pack_thin_image(source, _THIN, ManifestFormat.OCI).manifest)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["annotations"] == {
        "made.by": "tests",
        "org.cernvm.thin-image.origin": "r.org/a@sha256:b",
        "org.cernvm.thin-image.version": "1.0",
    }


def test_the_same_input_gives_the_same_bytes(source: Image) -> None:
    first = pack_thin_image(source, _THIN, ManifestFormat.DOCKER)
    assert first == pack_thin_image(source, _THIN, ManifestFormat.DOCKER)
    # Pinned: a change of these bytes changes the digest of every thin image that is made again.
    assert (
        hashlib.sha256(first.layer).hexdigest()
        == "b0c84809e625f96082b9b18ed2340e59b50244dd0dc9098832f526fbbcedb41d"
    )


@pytest.mark.parametrize("form", ManifestFormat)
def test_skopeo_takes_it(source: Image, form: ManifestFormat, tmp_path: Path) -> None:
    packed = pack_thin_image(source, _THIN, form)
    directory = tmp_path / "dir"
    directory.mkdir()
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(packed.manifest)
    for blob in (packed.config, packed.layer):
        (directory / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    inspected = json.loads(skopeo("inspect", f"dir:{directory}"))
    assert inspected["Digest"] == str(packed.digest)
    skopeo("copy", "--insecure-policy", f"dir:{directory}", f"docker-archive:{tmp_path}/a.tar:thin:1")
