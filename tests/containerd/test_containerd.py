"""Real containerd with our snapshotter: images that are in no repository, and lazy ones, unmodified."""

import io
import os
import random
import signal
import tarfile
import threading
import time
from collections.abc import Iterator

import pytest

from tests.containerd.conftest import Scene, why
from tests.support.containerd import NAME, Containerd
from tests.support.mounts import wait_until
from tests.support.published import FQRN
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


def test_why_a_layer_is_lazy_or_not(engine: Containerd, scene: Scene, serving: SnapshotterProcess) -> None:
    engine.pull(scene.other)
    layers = why(serving, engine, scene.other)
    top, *below = layers
    if engine.is_lazy:
        assert (top["lazy"], top["why_not"].partition(":")[0]) == (False, "no-record")
        assert [each["found_by"] for each in below] == ["its chain ID"] * 2
        place = {"lazy": True, "repository": FQRN, "revision": 2}
        assert all(each | place == each and each["path"].startswith("/.layers/") for each in below)
    else:
        assert all("did not say which layer it unpacked" in each["why_not"] for each in layers)
    engine.run(scene.other, "/bin/sh", "-c", "true", keep="explained")
    assert why(serving, engine, "explained") == layers
    assert why(serving, engine, below[0]["chain"]) == below


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


def test_a_killed_snapshotter_harms_nobody(
    engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    """Containerd's commands fail until it has connected again; then all is well, and nothing left over."""
    engine.pull(scene.other)
    started = ("run", "--detach", "--snapshotter", NAME, scene.other, "running", "busybox", "sleep", "10000")
    engine.ctr(*started)
    done = threading.Event()

    def live() -> None:
        while not done.is_set():
            engine.succeeds(*engine.pulling(scene.image))
            engine.succeeds("run", "--rm", "--snapshotter", NAME, scene.image, "brief", "busybox", "true")
            engine.succeeds("images", "rm", "--sync", scene.image)

    life = threading.Thread(target=live)
    life.start()
    try:
        for _ in range(int(os.environ.get("KILLS", "4"))):
            time.sleep(random.uniform(0.05, 1.5))
            serving.stop(signal.SIGKILL)
            serving.start()
    finally:
        done.set()
        life.join()
    wait_until(lambda: engine.succeeds(*engine.pulling(scene.image)), 20)
    assert engine.run(scene.image, "busybox", "cat", "/motd") == "top\n"
    read = ("tasks", "exec", "--exec-id", "x", "running", "busybox", "cat", "/own")
    assert engine.ctr(*read) == "own\n"
    engine.ctr("tasks", "kill", "--signal", "SIGKILL", "running")
    wait_until(lambda: engine.succeeds("tasks", "rm", "running"), 20)
    engine.succeeds("tasks", "rm", "--force", "brief")
