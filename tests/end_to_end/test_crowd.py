"""Fifty containers of one thin image at once, whose files nobody has fetched yet."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from demo.daemons import DockerEngine, plugin_tarball
from demo.installation import Installation
from tests.end_to_end.conftest import Scene
from tests.support.project import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.docker]

_MANY = 50
_SUMS = "sha256sum /usr/bin/* /usr/sbin/*"


@pytest.fixture(scope="module")
def engine(scene: Scene, installation: Installation) -> Iterator[DockerEngine]:
    with DockerEngine(scene.stage.scratch, "crowd", installation) as made:
        made.start_with_plugin(plugin_tarball(PROJECT), scene.stage.etc)
        yield made


def test_fifty_containers_at_once(engine: DockerEngine, scene: Scene, stock: DockerEngine) -> None:
    expected = stock.run(scene.normal, "sh", "-c", _SUMS).decode().strip()
    assert len(expected.splitlines()) > 300
    engine.docker("pull", "--quiet", scene.thin)
    script = f"{_SUMS}; cat /proc/sys/kernel/hostname > /own; exec sleep 600"

    def start(number: int) -> str:
        name = f"one-of-many-{number}"
        options = ("--detach", "--network", "none", "--name", name, "--hostname", name)
        return engine.docker("run", *options, scene.thin, "sh", "-c", script)

    with ThreadPoolExecutor(_MANY) as pool:
        containers = list(pool.map(start, range(_MANY)))
        assert len(engine.docker("ps", "--quiet").split()) == _MANY
        waiting = "until [ -s /own ]; do sleep 0.1; done; cat /own"
        own = list(pool.map(lambda one: engine.docker("exec", one, "sh", "-c", waiting), containers))
        logs = list(pool.map(lambda one: engine.docker("logs", one), containers))
    assert own == [f"one-of-many-{number}" for number in range(_MANY)]
    assert set(logs) == {expected}

    engine.docker("rm", "--force", *containers)
    assert not [mount for mount in mounts_below(engine.directory) if mount.filesystem == b"overlay"]
