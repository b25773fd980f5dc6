"""A registry, a repository that has one of two images, and containerd with our snapshotter on each plane."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_ids, record_directory, unpacked_directory
from demo.daemons import registry
from demo.installation import Installation
from tests.support.containerd import Containerd, containerd, shared_directory
from tests.support.entries import Item, directory, file, symlink
from tests.support.images import TestLayer, push, write_layout
from tests.support.published import FQRN, Published, published
from tests.support.snapshotter_process import SnapshotterProcess, snapshotter
from tests.support.tars import tar_of

BUSYBOX = Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b""
CONFIG = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}
BASE = TestLayer(
    tar_of({"bin": None, "bin/busybox": BUSYBOX, "bin/sh": "busybox", "gone": b"x", "motd": b"base\n"})
)
TOP = TestLayer(tar_of({".wh.gone": b"", "motd": b"top\n", "etc": None}))
OWN = TestLayer(tar_of({"own": b"own\n"}))


class Scene:
    """``image`` is in the registry and in the repository, ``other`` has one layer more."""

    def __init__(self, scratch: Path, address: str, repository: Published) -> None:
        self.image, self.other = f"{address}/image:1", f"{address}/other:1"
        self.repository = repository
        for name, layers in ((self.image, [BASE, TOP]), (self.other, [BASE, TOP, OWN])):
            layout = scratch / name.rpartition("/")[2].partition(":")[0]
            write_layout(layout, layers, config=CONFIG)
            push(layout, name)
        self.repository_layers = [BASE.digest, TOP.digest]
        digests = [ContentDigest.parse(layer.digest) for layer in (BASE, TOP)]
        diff_ids = [ContentDigest.parse(layer.diff_id) for layer in (BASE, TOP)]
        trees: dict[bytes, list[Item]] = {
            unpacked_directory(digests[0]): [
                directory("/bin"),
                file("/bin/busybox", BUSYBOX, 0o755),
                symlink("/bin/sh", b"busybox"),
                file("/gone", b"x"),
                file("/motd", b"base\n"),
            ],
            unpacked_directory(digests[1]): [file("/.wh.gone"), file("/motd", b"top\n"), directory("/etc")],
        }
        for chain, digest, diff_id in zip(chain_ids(diff_ids), digests, diff_ids, strict=True):
            links = ChainRecord.of(unpacked_directory(digest), digest, diff_id).links()
            trees[record_directory(chain)] = [
                symlink(name, target) for name, target in zip(("/layer", "/diff"), links, strict=True)
            ]
        repository.publish(trees)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with shared_directory() as found:
        yield found


@pytest.fixture(scope="module")
def scene(scratch: Path) -> Iterator[Scene]:
    (scratch / "published").mkdir()
    with registry(scratch) as address, published(scratch / "published") as repository:
        yield Scene(scratch, address, repository)


@pytest.fixture(scope="module", params=["fuse", "erofs"])
def serving(request: pytest.FixtureRequest, scene: Scene, scratch: Path) -> Iterator[SnapshotterProcess]:
    place = scratch / request.param
    place.mkdir()
    with snapshotter(place, [FQRN], scene.repository.etc, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def engine(serving: SnapshotterProcess, scratch: Path, installation: Installation) -> Iterator[Containerd]:
    with containerd(serving.file.parent / "c", serving.socket, installation) as found:
        yield found


def why(serving: SnapshotterProcess, engine: Containerd, name: str) -> Any:
    """What ``cvmfs-graphdriver why`` says of an image or a container."""
    program = Path(sys.executable).with_name("cvmfs-graphdriver")
    command: list[str | Path] = [
        program,
        "why",
        name,
        "--json",
        "--config",
        serving.file,
        "--containerd",
        engine.socket,
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
