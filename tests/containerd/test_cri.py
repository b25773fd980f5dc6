"""containerd as a kubelet uses it, with our snapshotter, over the Container Runtime Interface."""

from collections.abc import Iterator
from hashlib import sha256

import pytest

from demo.installation import Installation
from tests.containerd.conftest import BASE, BUSYBOX, LITTLE, NORMAL, Scene, why
from tests.support.containerd import Containerd
from tests.support.cri import Cri
from tests.support.mounts import wait_until
from tests.support.snapshotter_process import SnapshotterProcess

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.matrix]

_SLEEP = ("/bin/busybox", "sleep", "1000000")


@pytest.fixture(scope="module")
def cri(engine: Containerd) -> Iterator[Cri]:
    with engine.cri() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_remains(cri: Cri, serving: SnapshotterProcess) -> Iterator[None]:
    yield
    for image in cri.images():
        cri.remove(image)
    assert cri.images() == {}
    wait_until(lambda: not (serving.infos() or serving.directories() or serving.standing()), 30)


def pulled(cri: Cri, scene: Scene, image: str) -> int:
    """Pull an image; returns how many bytes the registry sent for it."""
    before = scene.registry.sent
    cri.pull(image)
    assert image in cri.images()
    return scene.registry.sent - before


def ways(serving: SnapshotterProcess, engine: Containerd, image: str) -> list[str]:
    """By what each layer of an image was found, topmost first, or why it was not."""
    layers = why(serving, engine, image)
    return [each["found_by"] if each["lazy"] else each["why_not"].partition(":")[0] for each in layers]


def test_an_unmodified_image_starts_lazily(
    cri: Cri, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert 0 < pulled(cri, scene, scene.image) < LITTLE
    assert cri.images()[scene.image] > len(BASE.blob)  # whatever is here of it
    assert serving.directories() == []
    before = scene.registry.sent
    with cri.container(scene.image, *_SLEEP) as container:
        assert container("busybox", "cat", "/motd") == "top\n"
        assert container("busybox", "ls", "/") == "bin\ndev\netc\nmotd\nproc\nsys\n"
        assert scene.registry.sent - before < LITTLE  # for the sandbox
        assert ways(serving, engine, scene.image) == ["its chain ID"] * 2


def test_an_image_of_no_repository_is_pulled(
    cri: Cri, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert pulled(cri, scene, scene.normal) > len(NORMAL.blob)
    with cri.container(scene.normal, *_SLEEP) as container:
        assert container("busybox", "cat", "/motd") == "normal\n"
    assert ways(serving, engine, scene.normal) == ["no-record"]


def test_only_layers_of_no_repository_are_pulled(
    cri: Cri, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert pulled(cri, scene, scene.other) < LITTLE  # the layer that is not there is a little one
    assert len(serving.directories()) == 1
    with cri.container(scene.other, *_SLEEP) as container:
        assert container("busybox", "cat", "/own", "/motd") == "own\ntop\n"
    assert ways(serving, engine, scene.other) == ["no-record", "its chain ID", "its chain ID"]


def test_a_layer_without_a_record_is_found_by_the_digest_of_its_blob(
    cri: Cri, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert pulled(cri, scene, scene.unrecorded) < LITTLE
    assert serving.directories() == []
    with cri.container(scene.unrecorded, *_SLEEP) as container:
        assert container("busybox", "cat", "/motd", "/gone") == "unrecorded\nx"
    assert ways(serving, engine, scene.unrecorded) == ["the digest of its blob", "its chain ID"]


def test_a_layer_is_lazy_above_one_that_was_pulled(
    cri: Cri, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert pulled(cri, scene, scene.upper) > len(NORMAL.blob)
    assert len(serving.directories()) == 1
    with cri.container(scene.upper, *_SLEEP) as container:
        assert container("busybox", "cat", "/motd") == "unrecorded\n"
    assert ways(serving, engine, scene.upper) == ["the digest of its blob", "no-record"]


def test_what_a_container_takes(
    cri: Cri, scene: Scene, serving: SnapshotterProcess, installation: Installation
) -> None:
    cri.pull(scene.image)
    with cri.container(scene.image, *_SLEEP) as container:
        before = cri.image_filesystem()
        if installation.version("/usr/bin/containerd") >= (1, 7):  # 1.6 tells a directory of its own
            assert before.fs_id.mountpoint == str(serving.state)
        container("busybox", "dd", "if=/dev/zero", "of=/new", "bs=1M", "count=3")
        wait_until(lambda: container.stats().writable_layer.used_bytes.value >= 3 << 20, 20)
        stats = container.stats()
        assert stats.writable_layer.inodes_used.value > 0
        assert stats.memory.working_set_bytes.value > 0
        assert stats.cpu.usage_core_nano_seconds.value > 0
        assert cri.image_filesystem().used_bytes.value >= before.used_bytes.value + (3 << 20)
    wait_until(lambda: cri.image_filesystem().used_bytes.value < 3 << 20, 20)


def test_a_container_goes_on_without_its_image(cri: Cri, scene: Scene) -> None:
    cri.pull(scene.image)
    with cri.container(scene.image, *_SLEEP) as container:
        cri.remove(scene.image)
        assert scene.image not in cri.images()
        assert container("busybox", "cat", "/motd") == "top\n"


def test_images_are_volumes(cri: Cri, scene: Scene, installation: Installation) -> None:
    if installation.version("/usr/bin/containerd") < (2, 1):
        pytest.skip("needs containerd 2.1 or later: make test-matrix")
    volumes = {"/lazy": scene.image, "/half": scene.other, "/normal": scene.normal}
    for image in volumes.values():
        cri.pull(image)
    with cri.container(scene.image, *_SLEEP, volumes=volumes) as container:
        motds = [f"{path}/motd" for path in volumes]
        assert container("busybox", "cat", *motds, "/half/own") == "top\ntop\nnormal\nown\n"
        sums = container("busybox", "sha256sum", *(f"{path}/bin/busybox" for path in volumes)).split()
        assert sums[::2] == [sha256(BUSYBOX).hexdigest()] * 3
        assert container("sh", "-c", "echo >/lazy/new 2>/dev/null || echo refused") == "refused\n"
