"""Docker 26 and later, with containerd's image store on our snapshotter: images as such.

Docker pushes and saves blobs, which a lazy image has not: the tests show what then becomes of it.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.installation import Installation
from tests.containerd.conftest import BASE, BUSYBOX, LITTLE, NORMAL, TOP, Scene, pulled
from tests.support.containerd import Containerd, Docker
from tests.support.images import TestLayer, skopeo
from tests.support.mounts import wait_until
from tests.support.registry import RegistryServer, run_registry
from tests.support.snapshotter_process import SnapshotterProcess

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.matrix]

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6}


@pytest.fixture(scope="module")
def elsewhere(scratch: Path) -> Iterator[RegistryServer]:
    with run_registry(scratch / "elsewhere") as found:
        yield found


def layers_at(reference: str, scratch: Path) -> list[str]:
    """The layers of an image in a registry, each of which is checked against its digest."""
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{scratch}")
    manifest = json.loads((scratch / "manifest.json").read_text())
    return [layer["digest"] for layer in manifest["layers"]]


def saved(docker: Docker, image: str, archive: Path) -> set[str]:
    """What of the blobs of an image Docker saves."""
    docker("save", "--output", str(archive), image)
    with tarfile.open(archive) as tar:
        return {
            f"sha256:{name.rpartition('/')[2]}" for name in tar.getnames() if name.startswith("blobs/sha256/")
        }


def take(docker: Docker, kind: str) -> float:
    """How many bytes Docker says that its images, containers or builds take."""
    words = docker("system", "df", "--format", "{{.Type}}:{{.Size}}").splitlines()
    (size,) = [word.partition(":")[2] for word in words if word.startswith(kind)]
    number = size.rstrip("kMB")
    return float(number) * _UNITS[size.removeprefix(number)]


def test_a_lazy_image_is_pushed_within_its_registry(docker: Docker, scene: Scene, tmp_path: Path) -> None:
    """The registry takes its own blobs."""
    before = pulled(docker, scene, scene.image), scene.registry.sent
    copy = f"{scene.registry.host}/copy:1"
    docker("tag", scene.image, copy)
    docker("push", copy)
    assert scene.registry.sent - before[1] < LITTLE
    assert layers_at(copy, tmp_path / "copied") == [BASE.digest, TOP.digest]


@pytest.mark.parametrize("kind", ["image", "other"])
def test_a_lazy_image_is_not_pushed_to_another_registry(
    docker: Docker, scene: Scene, elsewhere: RegistryServer, kind: str
) -> None:
    image, copy = getattr(scene, kind), f"{elsewhere.host}/{kind}:1"
    pulled(docker, scene, image)
    docker("tag", image, copy)
    message = docker.refused("push", copy)
    assert "not found" in message
    assert any(layer.digest in message for layer in (BASE, TOP))
    assert "not found" in docker.refused("pull", copy)


def test_a_lazy_image_is_saved_without_layers(
    docker: Docker, scene: Scene, installation: Installation, tmp_path: Path
) -> None:
    """Docker says nothing of it, unless it is asked for a platform."""
    pulled(docker, scene, scene.image)
    assert not saved(docker, scene.image, tmp_path / "saved.tar") & {BASE.digest, TOP.digest}
    if installation.version("/usr/sbin/dockerd") >= (28, 0):
        words = ("save", "--platform=linux/amd64", f"--output={tmp_path}/other.tar", scene.image)
        assert "does not provide the specified platform" in docker.refused(*words)


@pytest.mark.parametrize("kind", ["normal", "fetched", "built"])
def test_a_whole_image_is_pushed_and_saved(
    docker: Docker, engine: Containerd, scene: Scene, elsewhere: RegistryServer, kind: str, tmp_path: Path
) -> None:
    """Never lazy; its blobs fetched afterwards; built by BuildKit upon a lazy one."""
    name = f"{elsewhere.host}/{kind}:1"
    layers: list[TestLayer] = [NORMAL] if kind == "normal" else [BASE, TOP]
    pulled(docker, scene, scene.normal if kind == "normal" else scene.image)
    if kind == "built":
        (tmp_path / "Dockerfile").write_text(f"FROM {scene.image}\nRUN echo built >/built\n")
        docker("build", "--network=none", "--provenance=false", f"--tag={name}", str(tmp_path))
    else:
        docker("tag", scene.normal if kind == "normal" else scene.image, name)
    if kind == "fetched":
        fetch = ("content", "fetch", "--plain-http", "--platform=linux/amd64", scene.image)
        engine.ctr("--namespace=moby", *fetch)
    assert docker("image", "inspect", "--format={{.Config.Env}}", name) == "[PATH=/bin]\n"
    assert {layer.digest for layer in layers} <= saved(docker, name, tmp_path / "saved.tar")
    docker("push", name)
    assert layers_at(name, tmp_path / "pushed")[: len(layers)] == [layer.digest for layer in layers]
    docker("image", "rm", name)
    docker("load", "--input", str(tmp_path / "saved.tar"))
    told = {"normal": "normal\n", "fetched": "top\n", "built": "top\nbuilt\n"}[kind]
    assert docker.run(name, "sh", "-c", "busybox cat /motd; [ ! -e /built ] || busybox cat /built") == told


def test_what_is_removed_is_gone_and_nothing_else(
    docker: Docker, scene: Scene, serving: SnapshotterProcess
) -> None:
    pulled(docker, scene, scene.image, scene.other, scene.normal)
    assert (len(serving.infos()), len(serving.directories())) == (4, 2)
    docker("image", "rm", scene.image)
    assert docker.run(scene.other, "busybox", "cat", "/own", "/motd") == "own\ntop\n"
    docker("create", "--name=cc", "--network=none", scene.other, "busybox", "cat", "/own", "/motd")
    docker("image", "rm", "--force", scene.other)
    assert docker("start", "--attach", "cc") == "own\ntop\n"
    docker("container", "prune", "--force")
    assert docker.run(scene.normal, "busybox", "cat", "/motd") == "normal\n"
    docker("image", "prune", "--all", "--force")
    wait_until(lambda: not (serving.infos() or serving.directories() or serving.standing()), 30)
    assert docker("image", "ls", "--all", "--quiet") == ""


def test_what_images_and_containers_take(docker: Docker, scene: Scene, installation: Installation) -> None:
    pulled(docker, scene, scene.image)
    listed = docker("image", "ls", "--format={{.Repository}}").split()
    if installation.version("/usr/sbin/dockerd") >= (28, 0):
        assert listed == [scene.image.removesuffix(":1")]
    else:  # it lists only images whose blobs are here
        assert listed == []
    assert take(docker, "Images") < LITTLE
    docker("run", "--name=cc", "--network=none", scene.image, "busybox", "dd", "if=/bin/busybox", "of=/copy")
    assert len(BUSYBOX) * 0.99 < take(docker, "Containers") < len(BUSYBOX) * 1.1
    docker("rm", "cc")
    assert take(docker, "Containers") == 0
    pulled(docker, scene, scene.normal)
    both = len(BUSYBOX) + len(NORMAL.blob)  # Docker 28 counts the blob, too
    assert len(BUSYBOX) * 0.99 < take(docker, "Images") < both * 1.1
