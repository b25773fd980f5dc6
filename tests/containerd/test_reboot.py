"""After a reboot, with registry and network down, containers start again whose files are cached."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.installation import Installation
from demo.stage import stage
from tests.support.containerd import NAME
from tests.support.images import TestLayer
from tests.support.lazy_site import base_layer, lazy_site, push_layers
from tests.support.mounts import wait_until
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

_READ, _UNREAD = b"read" * 1000, b"unread" * 1000
_LIFE = ("sh", "-c", "busybox cat /data/read >>/mine; busybox sleep 100000")


@pytest.mark.parametrize("plane", ["fuse", "erofs"])
def test_containers_start_again_without_any_network(
    plane: str, scratch: Path, installation: Installation
) -> None:
    if installation.version("/usr/sbin/dockerd")[0] < 28:
        pytest.skip("needs Docker 28 or later: make test-matrix")
    place = scratch / f"reboot-{plane}"
    place.mkdir()
    with ExitStack() as network:
        set_up = network.enter_context(stage(place))
        data = TestLayer(tar_of({"data": None, "data/read": _READ, "data/unread": _UNREAD}))
        image = push_layers(set_up, "lazy", [base_layer(), data], lazy=True)
        with lazy_site(place / "n", set_up, plane, installation) as site:
            docker, engine, serving = site.docker, site.engine, site.serving
            docker("pull", "--quiet", image)
            engine.pull(image)
            assert serving.directories() == []  # nothing has been unpacked
            docker("run", "--detach", "--name=one", "--network=none", image, *_LIFE)
            engine.ctr("run", "--detach", "--snapshotter", NAME, image, "two", *_LIFE)

            def written(times: int) -> bool:
                mine = docker.output("exec", "one", "busybox", "cat", "/mine")
                return mine == engine.read("two", "/mine") == _READ * times

            wait_until(lambda: written(1), 20)
            serving.stop(signal.SIGKILL)
            engine.crash()
            docker.crash()
            serving.unmount_everything()
            network.close()
            serving.start()
            assert serving.standing() == []
            engine.start()
            docker.start()
            docker("start", "one")
            engine.ctr("tasks", "start", "--detach", "two")
            wait_until(lambda: written(2), 20)
            # What nobody has read is an error, not an empty or absent file.
            assert not docker.succeeds("exec", "one", "busybox", "cat", "/data/unread")
            assert docker("exec", "one", "busybox", "ls", "/data") == "read\nunread\n"
            docker("run", "--rm", "--network=none", image, "busybox", "true")
            site.forget_everything()
            site.nothing_remains()
