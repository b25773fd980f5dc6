"""Docker 26 and later, with containerd's image store on our snapshotter: containers and builds.

Each with an image that is in the repository, one whose topmost layer is not, and one that is not there.
"""

import io
import tarfile
from pathlib import Path

import pytest

from tests.containerd.conftest import LITTLE, NORMAL, Scene, pulled, why
from tests.support.containerd import Containerd, Docker
from tests.support.snapshotter_process import SnapshotterProcess
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.matrix]

MOTDS = {"image": "top\n", "other": "top\n", "normal": "normal\n"}


@pytest.fixture(params=sorted(MOTDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(scene: Scene, kind: str) -> str:
    return str(getattr(scene, kind))


def test_an_unmodified_image_runs_without_its_layers(
    docker: Docker, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert 0 < pulled(docker, scene, scene.image) < LITTLE
    assert len(engine.ctr("--namespace", "moby", "content", "ls", "--quiet").split()) == 2
    assert serving.directories() == []
    assert docker.run(scene.image, "busybox", "cat", "/motd") == "top\n"
    layers = why(serving, engine, scene.image)
    assert [layer["lazy"] for layer in layers] == [True] * 2
    container = docker("create", "--network=none", scene.image, "true").strip()
    own, *rest = why(serving, engine, container[:12])
    assert (own["lazy"], own["why_not"], rest) == (False, "it was made on this machine", layers)
    docker("rm", container)


def test_only_what_no_repository_has_is_pulled(
    docker: Docker, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert 0 < pulled(docker, scene, scene.other) < LITTLE  # the layer that is not there is a little one
    assert len(serving.directories()) == 1
    assert docker.run(scene.other, "busybox", "cat", "/own", "/motd") == "own\ntop\n"
    assert pulled(docker, scene, scene.normal) > len(NORMAL.blob)
    assert docker.run(scene.normal, "busybox", "cat", "/motd") == "normal\n"


def test_a_layer_without_a_record_is_found_by_the_digest_of_its_blob(
    docker: Docker, scene: Scene, serving: SnapshotterProcess
) -> None:
    before = scene.registry.sent
    assert docker.run(scene.unrecorded, "busybox", "cat", "/motd", "/gone") == "unrecorded\nx"
    assert 0 < scene.registry.sent - before < LITTLE
    assert serving.directories() == []


def test_a_layer_is_lazy_above_one_that_was_pulled(
    docker: Docker, scene: Scene, serving: SnapshotterProcess
) -> None:
    assert pulled(docker, scene, scene.upper) > len(NORMAL.blob)
    assert len(serving.directories()) == 1
    assert docker.run(scene.upper, "busybox", "cat", "/motd") == "unrecorded\n"


def test_a_container_is_examined_changed_and_committed(
    docker: Docker, scene: Scene, image: str, kind: str
) -> None:
    pulled(docker, scene, image)
    before = scene.registry.sent
    docker("run", "--detach", "--name=cc", "--network=none", image, "busybox", "sleep", "1000")
    assert docker("exec", "cc", "busybox", "cat", "/motd") == MOTDS[kind]
    docker("exec", "cc", "sh", "-c", "echo new >/new; busybox rm /motd")
    docker.output("cp", "-", "cc:/etc", given=tar_of({"given": b"given\n"}))
    assert set(docker("diff", "cc").splitlines()) == {"A /new", "D /motd", "C /etc", "A /etc/given"}
    with tarfile.open(fileobj=io.BytesIO(docker.output("cp", "cc:/new", "-"))) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        assert (member.name, content.read()) == ("new", b"new\n")
    docker("commit", "cc", "changed:1")
    docker("rm", "--force", "cc")
    shown = "busybox cat /new /etc/given; busybox ls / | busybox grep -v -e dev -e proc -e sys"
    own = "own\n" if kind == "other" else ""
    assert docker.run("changed:1", "sh", "-c", shown) == f"new\ngiven\nbin\netc\nnew\n{own}"
    assert scene.registry.sent == before


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_images_are_built(
    docker: Docker, scene: Scene, image: str, kind: str, builder: str, tmp_path: Path
) -> None:
    """The classic builder fetches nothing. BuildKit ends by fetching the blobs that the result needs."""
    pulled(docker, scene, image)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image} AS first\nRUN echo built >/built && busybox rm /motd\n"
        f"FROM {image}\nCOPY --from=first /built /copied\nRUN busybox rm /bin/sh\n"
    )
    before = scene.registry.sent
    switch = str(int(builder == "buildkit"))
    docker("build", "--network=none", "--tag=built:1", str(tmp_path), DOCKER_BUILDKIT=switch)
    assert docker.run("built:1", "busybox", "cat", "/copied", "/motd") == f"built\n{MOTDS[kind]}"
    assert docker.run("built:1", "busybox", "ls", "/bin") == "busybox\n"
    sent = scene.registry.sent - before
    if builder == "classic" or kind == "normal":
        assert sent == 0
    else:
        assert sent == sum(len(layer.blob) for layer in scene.repository_layers)


def test_buildkit_pulls_what_is_not_here(docker: Docker, scene: Scene, tmp_path: Path) -> None:
    """Only what was pulled before is lazy: it asks only snapshotters that it knows by their names."""
    (tmp_path / "Dockerfile").write_text(f"FROM {scene.image}\nRUN echo built >/built\n")
    before = scene.registry.sent
    docker("build", "--network=none", "--tag=built:1", str(tmp_path))
    assert scene.registry.sent - before > len(scene.repository_layers[0].blob)
    assert docker.run("built:1", "busybox", "cat", "/built", "/motd") == "built\ntop\n"
