"""The snapshotter's image on a node with real systemd and containerd, with the rights of the manifests.

``make test-matrix`` makes the node's root directory and the image.
"""

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from tests.containerd.conftest import Scene
from tests.support.node import Node, node
from tests.support.project import PROJECT
from tests.support.published import FQRN
from tests.support.snapshotter_image import ARCHIVE, IMAGE, NODE, VERSION, need_snapshotter_image

pytestmark = [pytest.mark.root, pytest.mark.docker]

_NAME = "cvmfs-snapshotter"


def manifest(name: str) -> dict[str, Any]:
    """The container of a manifest that works on the node."""
    documents = YAML(typ="safe").load_all((PROJECT / "deploy/kubernetes" / name).read_text())
    (found,) = [each for each in documents if each["kind"] == "DaemonSet"]
    (container,) = found["spec"]["template"]["spec"]["initContainers"]
    return dict(container)


@pytest.fixture(scope="module")
def given(scene: Scene, scratch: Path) -> Path:
    """What the cluster gives: repositories, how to reach them, and the keys."""
    place = scratch / "given"
    (place / "cvmfs-snapshotter").mkdir(parents=True)
    (place / "cvmfs-snapshotter/config.toml").write_text(f'repositories = ["{FQRN}"]\n')
    (place / "cvmfs/keys").mkdir(parents=True)
    local = (scene.repository.etc / "default.local").read_text().splitlines()
    kept = [line for line in local if not line.startswith(("CVMFS_KEYS_DIR", "CVMFS_CACHE_BASE"))]
    (place / "cvmfs/default.local").write_text("\n".join([*kept, "CVMFS_KEYS_DIR=/etc/cvmfs/keys", ""]))
    for key in (scene.repository.etc.parent / "keys").glob("*.pub"):
        shutil.copy(key, place / "cvmfs/keys")
    return place


@pytest.fixture(scope="module")
def running(given: Path, scratch: Path) -> Iterator[Node]:
    need_snapshotter_image()
    place = scratch / "node"
    place.mkdir()
    with node(NODE, place, f"--bind-ro={ARCHIVE}:/image.tar", f"--bind={given}:/given") as found:
        found("ctr", "images", "import", "/image.tar")
        yield found


def work(node: Node, name: str) -> tuple[int, str]:
    """Run a manifest's container until it ends; returns its exit status, and what it says."""
    container = manifest(name)
    capabilities = container["securityContext"]["capabilities"]["add"]
    return node.container(IMAGE, container["args"], capabilities, "/given")


def done(node: Node, name: str) -> str:
    status, said = work(node, name)
    assert status == 0, said
    return said


def test_containerd_is_left_alone_if_the_snapshotter_does_not_serve(running: Node, given: Path) -> None:
    main = running.root / "etc/containerd/config.toml"
    before = main.read_bytes()
    file = given / "cvmfs-snapshotter/config.toml"
    right = file.read_text()
    file.write_text('repository = "unpacked.cern.ch"\n')
    status, said = work(running, "install.yaml")
    file.write_text(right)
    assert status == InstallationError.exit_code, said
    assert "systemctl restart cvmfs-snapshotter.service failed" in said
    assert "there is no such key" in running("journalctl", "--no-pager", f"--unit={_NAME}")
    assert main.read_bytes() == before
    assert not (running.root / "etc/containerd/conf.d").exists()


def test_there_and_back(running: Node, scene: Scene) -> None:
    main = running.root / "etc/containerd/config.toml"
    before = main.read_bytes()
    said = done(running, "install.yaml")
    assert "is installed" in said
    assert "restarting containerd.service" in said
    assert _NAME in running("ctr", "plugins", "ls")
    read = tomllib.loads(running("containerd", "config", "dump"))["plugins"]
    assert read["io.containerd.cri.v1.images"]["snapshotter"] == _NAME  # for a kubelet
    since = running("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "containerd", _NAME)
    assert done(running, "install.yaml").startswith(f"{VERSION}-")
    assert since == running(
        "systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "containerd", _NAME
    )

    running("ctr", "images", "pull", "--plain-http", "--snapshotter", _NAME, scene.image)
    run = ("ctr", "run", "--cpu-shares=0", "--snapshotter", _NAME)
    assert running(*run, "--rm", scene.image, "once", "/bin/sh", "-c", "busybox cat /motd") == "top\n"
    stored = running("ctr", "content", "ls", "--quiet").split()
    journal = running("journalctl", "--no-pager", f"--unit={_NAME}")
    assert all(layer.digest not in stored for layer in scene.repository_layers), journal
    running(*run, "--detach", scene.image, "kept", "/bin/sh", "-c", "busybox sleep 600")

    assert "processes still use" in done(running, "uninstall.yaml")
    assert main.read_bytes() == before
    assert _NAME not in running("ctr", "plugins", "ls")
    assert running.run("systemctl", "cat", _NAME).returncode != 0
    assert not (running.root / "etc/cvmfs/default.local").exists()
    assert not (running.root / "opt/cvmfs-snapshotter/current").exists()
    # What runs does so from the repository, still.
    look = ("ctr", "tasks", "exec", "--exec-id=e", "kept", "/bin/busybox", "md5sum", "/bin/busybox")
    assert running(*look).endswith("/bin/busybox\n")
    running("ctr", "tasks", "kill", "--signal=SIGKILL", "kept")
