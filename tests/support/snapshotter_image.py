"""The image of the snapshotter, and a root directory of another release to put it on."""

import os
import tomllib

import pytest

from tests.support.project import PROJECT

__all__ = ["ARCHIVE", "IMAGE", "NODE", "VERSION", "need_snapshotter_image"]

VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"cvmfs-snapshotter:{VERSION}"
ARCHIVE = PROJECT / f"build/cvmfs-snapshotter-image-{VERSION}.tar"
NODE = PROJECT / "build/kubernetes-node"


def need_snapshotter_image() -> None:
    """Skip unless both have just been made."""
    if not os.environ.get("FETCH_PACKAGES"):
        pytest.skip("FETCH_PACKAGES is not set: 'make test-matrix' sets it, and builds the image")
