"""The image of the snapshotter, and a root directory of another release to put it on."""

import hashlib
import json
import os
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import PROJECT

__all__ = [
    "ARCHIVE",
    "IMAGE",
    "NODE",
    "VERSION",
    "image_blob",
    "image_manifest",
    "need_snapshotter_image",
    "read_archive",
    "unpack_snapshotter_image",
]

VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"cvmfs-snapshotter:{VERSION}"
ARCHIVE = PROJECT / f"build/cvmfs-snapshotter-image-{VERSION}.tar"
NODE = PROJECT / "build/kubernetes-node"


def need_snapshotter_image() -> None:
    """Skip unless both have just been made."""
    if not os.environ.get("FETCH_PACKAGES"):
        pytest.skip("FETCH_PACKAGES is not set: 'make test-matrix' sets it, and builds the image")


def read_archive(archive: Path) -> dict[str, bytes]:
    """The files in an OCI archive."""
    with tarfile.open(archive) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def image_blob(files: Mapping[str, bytes], descriptor: Mapping[str, Any]) -> bytes:
    """What a descriptor describes; asserts that it does."""
    content = files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
    assert len(content) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    return content


def image_manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest of the only image."""
    (described,) = json.loads(files["index.json"])["manifests"]
    return dict(json.loads(image_blob(files, described)))


def unpack_snapshotter_image(archive: Path, place: Path) -> None:
    """Unpack its only layer."""
    files = read_archive(archive)
    (layer,) = image_manifest(files)["layers"]
    content = image_blob(files, layer)
    subprocess.run(["tar", "--extract", "--gzip", "--directory", place], input=content, check=True)
