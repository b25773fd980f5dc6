"""The container sees the truth: the demo's unmodified image is the same tree, lazily, as with overlayfs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.images import build_image, push_image
from demo.installation import Installation
from demo.stage import Stage, stage
from tests.support.containerd import NAME, Containerd, Docker, containerd
from tests.support.lazy_site import lazy_site
from tests.support.project import PROJECT
from tests.support.walks import WALKER, check_oddities, differences, entries

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.timeout(3600)]

_LONGEST = 900.0
"""Seconds that a walk may take, in which every file is fetched."""
WALK = ("python3", "-c", WALKER.decode())  # ctr may forget to say that its standard input has ended


@pytest.fixture(scope="module")
def image(scratch: Path, installation: Installation) -> Iterator[tuple[Stage, str]]:
    """The demo's image, in a registry and a repository."""
    if installation.version("/usr/sbin/dockerd")[0] < 28:
        pytest.skip("needs Docker 28 or later: make test-matrix")
    place = scratch / "stage"
    place.mkdir()
    with stage(place) as found:
        name = f"{found.registry}/demo:1"
        push_image(build_image(PROJECT / "build" / "demo"), name)
        found.publish(name)
        yield found, name


def pull(engine: Containerd, docker: Docker, image: str, snapshotter: str) -> None:
    engine.pull(image, snapshotter)
    docker("pull", "--quiet", image)


def walks(engine: Containerd, docker: Docker, image: str, snapshotter: str) -> dict[str, dict[str, Any]]:
    """What a container of each engine sees."""
    engine.patience = docker.patience = _LONGEST
    return {
        "containerd": entries(engine.run(image, *WALK, snapshotter=snapshotter)),
        "Docker": entries(docker("run", "--rm", "--network=none", image, *WALK)),
    }


@pytest.fixture(scope="module")
def truth(image: tuple[Stage, str], scratch: Path, installation: Installation) -> dict[str, dict[str, Any]]:
    with (
        containerd(scratch / "stock", scratch / "unused.sock", scratch / "unused", installation) as engine,
        engine.docker("overlayfs") as docker,
    ):
        pull(engine, docker, image[1], "overlayfs")
        seen = walks(engine, docker, image[1], "overlayfs")
    for each in seen.values():
        check_oddities(each)
    return seen


@pytest.mark.parametrize("plane", ["fuse", "erofs"])
def test_the_lazy_image(
    plane: str,
    image: tuple[Stage, str],
    truth: dict[str, dict[str, Any]],
    scratch: Path,
    installation: Installation,
) -> None:
    with lazy_site(scratch / f"truth-{plane}", image[0], plane, installation) as site:
        pull(site.engine, site.docker, image[1], NAME)
        assert site.serving.directories() == []  # nothing has been unpacked
        for engine, seen in walks(site.engine, site.docker, image[1], NAME).items():
            found = differences(truth[engine], seen)
            assert not found, "\n".join([engine, *found[:50]])
