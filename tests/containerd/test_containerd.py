"""Real containerd with our snapshotter: images that are in no repository, and lazy ones, unmodified."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_ids, record_directory, unpacked_directory
from demo.daemons import registry
from demo.installation import Installation
from tests.support.containerd import NAME, Containerd, containerd, shared_directory
from tests.support.entries import Item, directory, file, symlink
from tests.support.images import TestLayer, push, write_layout
from tests.support.mounts import wait_until
from tests.support.published import FQRN, Published, published
from tests.support.snapshotter_process import SnapshotterProcess, snapshotter
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

BUSYBOX = Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b""
CONFIG = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}
BASE = TestLayer(
    tar_of({"bin": None, "bin/busybox": BUSYBOX, "bin/sh": "busybox", "gone": b"x", "motd": b"base\n"})
)
TOP = TestLayer(tar_of({".wh.gone": b"", "motd": b"top\n", "etc": None}))
OWN = TestLayer(tar_of({"own": b"own\n"}))


class Scene:
    """A registry and a repository; ``image`` is in both, ``other`` has one layer more."""

    def __init__(self, scratch: Path, address: str, repository: Published) -> None:
        self.image, self.other = f"{address}/image:1", f"{address}/other:1"
        self.repository = repository
        for name, layers in ((self.image, [BASE, TOP]), (self.other, [BASE, TOP, OWN])):
            layout = scratch / name.rpartition("/")[2].partition(":")[0]
            write_layout(layout, layers, config=CONFIG)
            push(layout, name)
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


@pytest.fixture(autouse=True)
def nothing_remains(engine: Containerd, scene: Scene, serving: SnapshotterProcess) -> Iterator[None]:
    """Each test begins without images; once containerd has collected its garbage, nothing is left."""
    yield
    for container in engine.ctr("containers", "ls", "--quiet").split():
        engine.ctr("containers", "rm", container)
    engine.ctr("images", "rm", "--sync", *engine.ctr("images", "ls", "--quiet").split())
    wait_until(lambda: not (serving.infos() or serving.directories() or serving.standing()), 30)


def test_an_image_runs_unmodified(engine: Containerd, scene: Scene, serving: SnapshotterProcess) -> None:
    engine.pull(scene.image)
    lazy = engine.is_lazy
    assert engine.blobs() == (2 if lazy else 4)  # without a layer, or with both
    assert serving.directories() == [] if lazy else serving.directories() != []
    assert engine.run(scene.image, "/bin/sh", "-c", "busybox cat /motd; busybox ls /") == (
        "top\nbin\ndev\netc\nmotd\nproc\nrun\nsys\n"
    )


def test_what_no_repository_has_is_unpacked(
    engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    engine.pull(scene.other)
    assert engine.blobs() == (3 if engine.is_lazy else 5)
    assert engine.run(scene.other, "/bin/sh", "-c", "busybox cat /motd /own; busybox ls /bin") == (
        "top\nown\nbusybox\nsh\n"
    )


def test_changes_of_a_container_are_all_found(engine: Containerd, scene: Scene) -> None:
    """Containerd makes the container's mount read-only for that, and must not lose a layer."""
    engine.pull(scene.image)
    engine.run(
        scene.image, "/bin/sh", "-c", "echo new >/new; busybox rm /motd; echo >>/bin/sh2", keep="changed"
    )
    media_type = "application/vnd.oci.image.layer.v1.tar"
    data = engine.ctr_bytes("snapshots", "--snapshotter", NAME, "diff", "--media-type", media_type, "changed")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {name for name in tar.getnames() if not name.startswith(("dev", "proc", "sys", "run"))}
    assert found == {"new", ".wh.motd", "bin", "bin/sh2"}
