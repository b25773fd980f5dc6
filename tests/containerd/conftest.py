"""A registry, a repository that has some of its images, and containerd with our snapshotter on each plane."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_ids, record_directory, unpacked_directory
from demo.installation import Installation
from tests.support.containerd import Containerd, Docker, containerd, shared_directory
from tests.support.entries import Item, directory, file, symlink
from tests.support.images import TestLayer, push, write_layout
from tests.support.mounts import wait_until
from tests.support.published import FQRN, Published, published
from tests.support.registry import RegistryServer, run_registry
from tests.support.snapshotter_process import SnapshotterProcess, snapshotter
from tests.support.tars import tar_of

BUSYBOX = Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b""
LITTLE = 10_000
"""More bytes than manifest and configuration of an image take."""
CONFIG = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}
BASE = TestLayer(
    tar_of({"bin": None, "bin/busybox": BUSYBOX, "bin/sh": "busybox", "gone": b"x", "motd": b"base\n"})
)
TOP = TestLayer(tar_of({".wh.gone": b"", "motd": b"top\n", "etc": None}))
OWN = TestLayer(tar_of({"own": b"own\n"}))
UNRECORDED = TestLayer(tar_of({"motd": b"unrecorded\n"}))
NORMAL = TestLayer(
    tar_of({"bin": None, "bin/busybox": BUSYBOX, "bin/sh": "busybox", "motd": b"normal\n", "etc": None})
)


class Scene:
    """Images in a registry: ``image`` is in the repository, and ``other`` except its topmost layer.

    Nothing of ``normal`` is there; of ``unrecorded`` all layers are, but the index has no record of the upper
    one, which is the only one of ``upper`` that is there. ``pause`` is the image of sandboxes.
    """

    def __init__(self, scratch: Path, registry: RegistryServer, repository: Published) -> None:
        self.repository = repository
        self.registry = registry
        self._scratch = scratch
        self.image = self._push("image", BASE, TOP)
        self.other = self._push("other", BASE, TOP, OWN)
        self.normal = self._push("normal", NORMAL)
        self.unrecorded = self._push("unrecorded", BASE, UNRECORDED)
        self.upper = self._push("upper", NORMAL, UNRECORDED)
        self.pause = self._push("pause", BASE, Cmd=["/bin/busybox", "sleep", "1000000"])
        self.repository_layers = [BASE, TOP]
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
            unpacked_directory(ContentDigest.parse(UNRECORDED.digest)): [file("/motd", b"unrecorded\n")],
        }
        for chain, digest, diff_id in zip(chain_ids(diff_ids), digests, diff_ids, strict=True):
            links = ChainRecord.of(unpacked_directory(digest), digest, diff_id).links()
            trees[record_directory(chain)] = [
                symlink(name, target) for name, target in zip(("/layer", "/diff"), links, strict=True)
            ]
        repository.publish(trees)

    def _push(self, name: str, *layers: TestLayer, **config: Any) -> str:
        reference = f"{self.registry.host}/{name}:1"
        write_layout(self._scratch / name, layers, config={**CONFIG, **config})
        push(self._scratch / name, reference)
        return reference


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with shared_directory() as found:
        yield found


@pytest.fixture(scope="module")
def scene(scratch: Path) -> Iterator[Scene]:
    (scratch / "published").mkdir()
    with run_registry(scratch / "registry") as registry, published(scratch / "published") as repository:
        yield Scene(scratch, registry, repository)


@pytest.fixture(scope="module", params=["fuse", "erofs"])
def serving(request: pytest.FixtureRequest, scene: Scene, scratch: Path) -> Iterator[SnapshotterProcess]:
    place = scratch / request.param
    place.mkdir()
    with snapshotter(place, [FQRN], scene.repository.etc, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def engine(serving: SnapshotterProcess, scene: Scene, installation: Installation) -> Iterator[Containerd]:
    with containerd(
        serving.file.parent / "c", serving.socket, serving.state, installation, scene.pause
    ) as found:
        yield found


@pytest.fixture(scope="module")
def dockerd(engine: Containerd, installation: Installation) -> Iterator[Docker]:
    if installation.version("/usr/sbin/dockerd") < (26, 0):
        pytest.skip("needs Docker 26 or later: make test-matrix")
    with engine.docker() as found:
        yield found


@pytest.fixture
def docker(dockerd: Docker, serving: SnapshotterProcess) -> Iterator[Docker]:
    """A Docker that uses ``engine``; what a test has made there is removed, and nothing may be left of it."""
    yield dockerd
    dockerd("system", "prune", "--all", "--force")
    wait_until(lambda: not (serving.infos() or serving.directories() or serving.standing()), 30)


def pulled(docker: Docker, scene: Scene, *images: str) -> int:
    """Pull images; returns how many bytes the registry sent for them."""
    before = scene.registry.sent
    for image in images:
        docker("pull", "--quiet", image)
    return scene.registry.sent - before


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
