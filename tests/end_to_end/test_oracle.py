"""A converted image is what ``umoci unpack`` makes of it, in every attribute and byte, or listed.

docs/divergences.md says what cannot be the same, and why.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.conversion.convert import distinct_layers
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath
from demo.stage import FQRN, Stage, stage
from tests.end_to_end.debian import IMAGES, debian_images
from tests.support.project import PROJECT

WALKER = PROJECT / "tests/support/walker.py"

pytestmark = pytest.mark.root

DIVERGENCES = {
    "/odd/other/setuid-too": {"links", "same_as"},
    "/odd/other/three": {"links", "same_as"},
    "/odd/times": {"mtime_ns"},
    "/odder/attributes": {"xattrs"},
    "/odder/zero": {"there"},
    "/tmp": {"mode", "mtime_ns"},
}
"""What differs in the image of oddities, by path; the others are the same throughout."""

Tree = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def layout() -> Path:
    return debian_images(PROJECT / "build")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cvmfs-oracle-", dir="/var/tmp") as scratch:
        yield Path(scratch)


@pytest.fixture(scope="module")
def scene(place: Path) -> Iterator[Stage]:
    with stage(place) as set_up:
        yield set_up


@pytest.fixture(scope="module")
def plane(place: Path, scene: Stage) -> Iterator[FusePlane]:
    mounts = place / "cvmfs"
    mounts.mkdir()
    own = {"CVMFS_CACHE_BASE": str(place / "cache"), "CVMFS_PUBLIC_KEY": str(scene.keys / f"{FQRN}.pub")}
    yield FusePlane(mounts, scene.etc, own)
    for mount in mounts_below(mounts):
        umount(mount.mount_point, UmountFlag.DETACH)


def tree(root: Path) -> Tree:
    """Everything below a directory, as somebody sees it whose root it is."""
    walk = subprocess.run([sys.executable, WALKER, root], stdout=subprocess.PIPE, check=True)
    return {entry["shown"]: entry for entry in map(json.loads, walk.stdout.splitlines())}


def unpacked(layout: Path, tag: str, bundle: Path) -> Tree:
    """The image as umoci unpacks it."""
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], check=True, capture_output=True)
    try:
        return tree(bundle / "rootfs")
    finally:
        subprocess.run(["rm", "-rf", bundle], check=True)


@contextmanager
def mounted(layout: Path, tag: str, plane: FusePlane, place: Path) -> Iterator[Path]:
    """The converted image as our client and overlayfs show it."""
    image = load_image(LayoutImage(layout, tag), None)
    layers = [
        LayerPath(FQRN, b"/layers/" + layer.descriptor.digest.hex.encode())
        for layer in reversed(distinct_layers(image))
    ]
    place.mkdir()
    with plane.lower(layers) as lower:
        mount_overlay(lower.layers, place, data=lower.data, options=lower.options)
    try:
        yield place
    finally:
        umount(place)


def differences(ours: Tree, theirs: Tree) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What is not the same: for each path the attributes, ours and theirs."""
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for path in ours.keys() | theirs.keys():
        left, right = ours.get(path), theirs.get(path)
        if left is None or right is None:
            found[path] = {"there": (left is not None, right is not None)}
        elif left != right:
            names = left.keys() | right.keys()
            pairs = {name: (left.get(name), right.get(name)) for name in names}
            found[path] = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return found


@pytest.mark.parametrize("tag", IMAGES)
def test_an_image_is_what_umoci_unpacks(
    tag: str, layout: Path, scene: Stage, plane: FusePlane, place: Path
) -> None:
    scene.convert(f"oci:{layout}:{tag}", f"{scene.registry}/{tag}:thin")
    with (
        mounted(layout, tag, plane, place / f"{tag}.merged") as merged,
        ThreadPoolExecutor(1) as other,
    ):
        theirs = other.submit(unpacked, layout, tag, place / f"{tag}.bundle")
        ours = tree(merged)
    found = differences(ours, theirs.result())
    expected = DIVERGENCES if tag == "oddities" else {}
    assert {path: set(names) for path, names in found.items()} == expected, found
