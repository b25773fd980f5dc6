"""The container sees the truth: the same tree, whatever driver and whatever form of the image."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from demo.daemons import DockerEngine
from tests.end_to_end.conftest import Scene
from tests.support.engines import Plugins
from tests.support.images import TestLayer, skopeo, write_layout
from tests.support.tars import tar_of
from tests.support.walks import WALKER, check_oddities, differences, entries

pytestmark = [pytest.mark.root, pytest.mark.docker]


def tree(engine: DockerEngine, image: str) -> dict[str, Any]:
    engine.docker("pull", "--quiet", image)
    return entries(engine.run(image, "python3", "-", stdin=WALKER))


@pytest.fixture(scope="module")
def truth(scene: Scene, stock: DockerEngine) -> dict[str, Any]:
    seen = tree(stock, scene.normal)
    check_oddities(seen)
    return seen


def test_the_normal_image_on_our_driver(scene: Scene, ours: DockerEngine, truth: dict[str, Any]) -> None:
    found = differences(truth, tree(ours, scene.normal))
    assert not found, "\n".join(found[:50])


def test_the_thin_image_on_our_driver(scene: Scene, ours: DockerEngine, truth: dict[str, Any]) -> None:
    found = differences(truth, tree(ours, scene.thin))
    assert not found, "\n".join(found[:50])


def test_the_thin_image_by_fuse_alone(scene: Scene, plugins: Plugins, truth: dict[str, Any]) -> None:
    with plugins.engine(scene.stage.scratch, "fuse", scene.stage.etc, settings=["DATA_PLANE=fuse"]) as engine:
        found = differences(truth, tree(engine, scene.thin))
        assert not found, "\n".join(found[:50])
        assert "Data Plane: fuse (required by DATA_PLANE)" in engine.docker("info")


def test_what_the_header_of_a_hard_link_says(ours: DockerEngine, stock: DockerEngine, tmp_path: Path) -> None:
    """Docker gives it to the file, whose owner and mode came before; no usual tool writes another one."""
    members: dict[str, tarfile.TarInfo] = {}
    for name, target, mode in (("f", "", 0o4755), ("h", "f", 0o640), ("g", "", 0o600), ("i", "/g", 0o666)):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.LNKTYPE if target else tarfile.REGTYPE, target
        member.mode, member.uid, member.gid, member.mtime = mode, 1000 + mode, 7, 1_600_000_000 + mode
        members[name] = member
    write_layout(tmp_path / "layout", [TestLayer(tar_of(members))])
    archive = tmp_path / "archive.tar"
    skopeo("copy", "--insecure-policy", f"oci:{tmp_path}/layout", f"docker-archive:{archive}:links:1")

    def seen(engine: DockerEngine) -> list[tuple[object, ...]]:
        engine.docker("load", stdin=archive.read_bytes())
        container = engine.docker("create", "links:1", "nothing").strip()
        found: list[tuple[object, ...]] = []
        for name in "fhgi":
            data = io.BytesIO(engine.docker_bytes("cp", f"{container}:/{name}", "-"))
            with tarfile.open(fileobj=data) as tar:
                (member,) = tar.getmembers()
                found.append((member.name, member.mode & 0o7777, member.uid, member.gid, member.mtime))
        return found

    truth = seen(stock)
    assert [mode for _, mode, *_ in truth] == [0o640, 0o640, 0o666, 0o666]
    assert seen(ours) == truth


def test_the_comparison_sees_a_difference(truth: dict[str, Any]) -> None:
    path = b"/odd/links/one".hex()
    changed = {**truth, path: {**truth[path], "mtime_ns": 1}}
    assert len(differences(truth, changed)) == 1
    del changed[path]
    assert differences(truth, changed) == ["only left: '/odd/links/one'"]
