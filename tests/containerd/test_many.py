"""Many containers of one image at once, and many images; when they are removed nothing is left of them."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.installation import Installation
from demo.stage import stage
from tests.support.containerd import NAME
from tests.support.images import TestLayer
from tests.support.lazy_site import LazySite, base_layer, lazy_site, push_layers
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.timeout(1800)]

_CONTAINERS, _IMAGES = 50, 200
_AT_ONCE = 8
_FILES = {f"data/{number}": os.urandom(20_000) for number in range(_CONTAINERS)}
_LIFE = ("sh", "-c", "busybox cat /data/$0 >/new; busybox mv /new /mine; busybox sleep 100000")
_READ = ("sh", "-c", "until [ -e /mine ]; do busybox sleep 0.1; done; busybox cat /mine")


@pytest.fixture(scope="module", params=["fuse", "erofs"])
def site(request: pytest.FixtureRequest, scratch: Path, installation: Installation) -> Iterator[LazySite]:
    if installation.version("/usr/sbin/dockerd")[0] < 28:
        pytest.skip("needs Docker 28 or later: make test-matrix")
    place = scratch / f"many-{request.param}"
    place.mkdir()
    with stage(place) as set_up, lazy_site(place / "n", set_up, request.param, installation) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_remains(site: LazySite) -> Iterator[None]:
    yield
    site.forget_everything()
    site.nothing_remains()


def test_fifty_containers_of_one_image_start_at_once(site: LazySite) -> None:
    image = push_layers(
        site.stage, "crowd", [base_layer(), TestLayer(tar_of({"data": None, **_FILES}))], lazy=True
    )
    docker, engine = site.docker, site.engine
    docker("pull", "--quiet", image)
    engine.pull(image)
    assert site.serving.directories() == []  # nothing has been unpacked

    def start_in_docker(number: int) -> None:
        docker("run", "--detach", f"--name=c{number}", "--network=none", image, *_LIFE, str(number))

    def start_in_containerd(number: int) -> None:
        engine.ctr("run", "--detach", "--snapshotter", NAME, image, f"c{number}", *_LIFE, str(number))

    def read_in_docker(number: int) -> bytes:
        return docker.output("exec", f"c{number}", *_READ)

    def read_in_containerd(number: int) -> bytes:
        engine.ctr_bytes("tasks", "exec", "--exec-id", "x", f"c{number}", *_READ)
        return engine.read(f"c{number}", "/mine")

    for start, read in ((start_in_docker, read_in_docker), (start_in_containerd, read_in_containerd)):
        with ThreadPoolExecutor(_CONTAINERS) as pool:
            begin = time.monotonic()
            list(pool.map(start, range(_CONTAINERS)))
            print(f"{start.__name__}: {time.monotonic() - begin:.1f} s")
            assert list(pool.map(read, range(_CONTAINERS))) == list(_FILES.values())


def test_two_hundred_images_come_and_go(site: LazySite) -> None:
    base = TestLayer(base_layer().tar, "plain")  # compressing it 200 times would take long
    docker, engine = site.docker, site.engine

    def push(number: int) -> str:
        own = TestLayer(tar_of({"number": str(number).encode(), f"own{number}": None}))
        return push_layers(site.stage, f"n{number}", [base, own], lazy=False)

    def use(number: int) -> None:
        """Every image is pulled, by one engine or the other, and run: it checks itself what it sees."""
        image = images[number]
        words = ("sh", "-c", f"[ $(busybox cat /number) = {number} ]")
        if number % 2:
            engine.pull(image)
            engine.run(image, *words)
        else:
            docker("pull", "--quiet", image)
            docker("run", "--rm", "--network=none", image, *words)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        images = list(pool.map(push, range(_IMAGES)))
        site.stage.publish(*images)
        begin = time.monotonic()
        list(pool.map(use, range(_IMAGES)))
        print(f"{_IMAGES} images pulled and run: {time.monotonic() - begin:.1f} s")
    labelled = [info for info in site.serving.infos() if "containerd.io/snapshot.ref" in info.labels]
    assert len(labelled) == _IMAGES + 1  # and the base, once for both engines, since it is lazy
