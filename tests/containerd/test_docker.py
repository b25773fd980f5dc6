"""Docker 28 and later, with containerd's image store on our snapshotter: the unmodified image, lazily."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.installation import Installation
from tests.containerd.conftest import Scene, why
from tests.support.containerd import Containerd, Docker
from tests.support.mounts import wait_until
from tests.support.snapshotter_process import SnapshotterProcess

pytestmark = [pytest.mark.root, pytest.mark.docker]


@pytest.fixture(scope="module")
def docker(engine: Containerd, installation: Installation) -> Iterator[Docker]:
    if installation.version("/usr/sbin/dockerd") < (26, 0):
        pytest.skip("needs Docker 26 or later: make test-matrix")
    with engine.docker() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_remains(docker: Docker, serving: SnapshotterProcess) -> Iterator[None]:
    yield
    docker("system", "prune", "--all", "--force")
    wait_until(lambda: not (serving.infos() or serving.directories() or serving.standing()), 30)


def test_an_unmodified_image_runs_without_its_layers(
    docker: Docker, engine: Containerd, scene: Scene, serving: SnapshotterProcess
) -> None:
    docker("pull", "--quiet", scene.image)
    assert len(engine.ctr("--namespace", "moby", "content", "ls", "--quiet").split()) == 2
    assert serving.directories() == []
    assert docker("run", "--rm", "--network=none", scene.image, "busybox", "cat", "/motd") == "top\n"
    assert docker("image", "ls", "--quiet") != ""
    layers = why(serving, engine, scene.image)
    assert [layer["lazy"] for layer in layers] == [True] * 2
    container = docker("create", "--network=none", scene.image, "true").strip()
    own, *rest = why(serving, engine, container[:12])
    assert (own["lazy"], own["why_not"], rest) == (False, "it was made on this machine", layers)
    docker("rm", container)
    docker("system", "df")


def test_a_container_is_examined_changed_and_committed(docker: Docker, scene: Scene) -> None:
    docker("pull", "--quiet", scene.image)
    docker("run", "--detach", "--name=cc", "--network=none", scene.image, "busybox", "sleep", "1000")
    docker("exec", "cc", "sh", "-c", "echo new >/new; busybox rm /motd")
    assert set(docker("diff", "cc").splitlines()) == {"A /new", "D /motd"}
    with tarfile.open(fileobj=io.BytesIO(docker.output("cp", "cc:/new", "-"))) as tar:
        assert tar.getnames() == ["new"]
    docker("commit", "cc", "changed:1")
    docker("rm", "--force", "cc")
    assert (
        docker(
            "run",
            "--rm",
            "--network=none",
            "changed:1",
            "sh",
            "-c",
            "busybox ls / | busybox grep -v -e dev -e proc -e sys",
        )
        == "bin\netc\nnew\n"
    )


def test_images_are_built_upon_a_lazy_one(docker: Docker, scene: Scene, tmp_path: Path) -> None:
    docker("pull", "--quiet", scene.image)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {scene.image} AS first\nRUN echo built >/built && busybox rm /motd\nFROM {scene.image}\n"
        "COPY --from=first /built /copied\n"
    )
    docker("build", "--network=none", "--tag=built:1", str(tmp_path))
    assert (
        docker("run", "--rm", "--network=none", "built:1", "busybox", "cat", "/copied", "/motd")
        == "built\ntop\n"
    )


def test_an_image_of_no_repository_above_a_lazy_one(docker: Docker, scene: Scene) -> None:
    docker("pull", "--quiet", scene.other)
    assert (
        docker("run", "--rm", "--network=none", scene.other, "busybox", "cat", "/own", "/motd")
        == "own\ntop\n"
    )
