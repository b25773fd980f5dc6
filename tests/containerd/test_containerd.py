"""Real containerd with our snapshotter: images that are in no repository, and lazy ones, unmodified."""

import io
import tarfile
from collections.abc import Iterator

import pytest

from tests.containerd.conftest import Scene
from tests.support.containerd import NAME, Containerd
from tests.support.mounts import wait_until
from tests.support.snapshotter_process import SnapshotterProcess

pytestmark = [pytest.mark.root, pytest.mark.docker]


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
