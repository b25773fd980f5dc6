"""Containers whose root is another user here: normal and thin images, and what is committed of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.planes.choice import obstacle
from demo.daemons import DockerEngine, plugin_tarball
from demo.images import build_image
from tests.end_to_end.conftest import Scene
from tests.end_to_end.test_commands import member
from tests.support.project import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.docker]

ROOT = 231_072


@pytest.fixture(scope="module")
def engine(scene: Scene) -> Iterator[DockerEngine]:
    scene.stage.scratch.chmod(0o711)  # Docker asks that the other root can come to its directory
    with DockerEngine(scene.stage.scratch, "remapped") as made:
        options = made.remap(ROOT)
        made.start("overlay2", *options)
        made.install_plugin(plugin_tarball(PROJECT), scene.stage.etc)
        made.stop()
        # Docker keeps plugins where only the machine's own root comes; see docs/administration.md.
        for place in (made.directory / "data").glob("*/plugins"):
            place.chmod(0o711)
            for plugin in place.glob("*/propagated-mount"):
                plugin.parent.chmod(0o711)
        made.start("cvmfs", *options)
        yield made


def lowest_layer(layout: Path) -> Path:
    """The file of an image's lowest layer."""

    def blob(descriptor: dict[str, str]) -> Path:
        return layout / "blobs" / descriptor["digest"].replace(":", "/")

    index = json.loads((layout / "index.json").read_text())
    return blob(json.loads(blob(index["manifests"][0]).read_text())["layers"][0])


@pytest.mark.parametrize("form", ["normal", "thin"])
def test_owners(engine: DockerEngine, scene: Scene, form: str) -> None:
    if form == "thin":
        image = scene.thin
        engine.docker("pull", "--quiet", image)
    else:  # the lowest layer alone: another has an owner that no namespace has, which Docker refuses
        image = "base:1"
        engine.docker("import", str(lowest_layer(build_image(PROJECT / "build/demo"))), image)
    script = (
        "cat /proc/self/uid_map; stat -c '%u:%g %n' /etc/passwd /usr; echo mine > /etc/motd; "
        "echo new > /new; chown 7:8 /new; chmod 600 /etc/passwd; stat -c %u:%g /new"
    )
    name = engine.docker("create", "--network", "none", image, "sh", "-c", script)
    seen = engine.docker("start", "--attach", name).split("\n")
    assert seen[0].split() == ["0", str(ROOT), "65536"]
    assert seen[1:] == ["0:0 /etc/passwd", "0:0 /usr", "7:8"]

    (home,) = (engine.directory / "data").glob("*/plugins/*/propagated-mount")  # the plugin calls it /mnt
    shown = engine.docker("inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", name)
    upper = home / Path(shown).relative_to("/mnt")
    on_disk = {path: os.lstat(upper / path) for path in ("new", "etc", "etc/motd", "etc/passwd")}
    assert {path: (status.st_uid - ROOT, status.st_gid - ROOT) for path, status in on_disk.items()} == {
        "new": (7, 8),
        "etc": (0, 0),
        "etc/motd": (0, 0),
        "etc/passwd": (0, 0),
    }
    assert set(engine.docker("diff", name).split("\n")) == {
        "A /new",
        "C /etc",
        "C /etc/motd",
        "C /etc/passwd",
    }

    engine.docker("commit", name, f"committed:{form}")
    assert engine.run(f"committed:{form}", "stat", "-c", "%u:%g", "/new", "/etc/passwd") == b"7:8\n0:0\n"
    assert member(engine.docker_bytes("cp", f"{name}:/etc/motd", "-"), "motd") == b"mine\n"
    engine.docker("rm", name)
    if not obstacle(engine.directory):  # which does not need the FUSE plane
        assert "Data Plane: erofs" in engine.docker("info")
