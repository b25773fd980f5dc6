"""A node that has fetched nothing starts thin containers: one, and fifty at once.

They fetch what they read, and little else.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from demo.daemons import DockerEngine
from demo.images import COMMAND
from demo.installation import Installation
from tests.end_to_end.conftest import Scene
from tests.support.engines import Plugins

pytestmark = [pytest.mark.root, pytest.mark.docker]

_MANY = 50
_SUMS = "sha256sum /usr/bin/* /usr/sbin/*"


@pytest.fixture(scope="module")
def engine(scene: Scene, plugins: Plugins, installation: Installation) -> Iterator[DockerEngine]:
    with plugins.engine(scene.stage.scratch, "crowd", scene.stage.etc, installation=installation) as made:
        yield made


def test_starting_fetches_at_most_a_tenth_of_the_image(
    engine: DockerEngine, scene: Scene, stock: DockerEngine
) -> None:
    """The same answer as on stock Docker, for a tenth of the bytes; a second start fetches nothing."""
    expected = stock.run(scene.normal, *COMMAND)
    engine.docker("pull", "--quiet", scene.thin)
    _, before = scene.stage.fetched()
    assert engine.run(scene.thin, *COMMAND) == expected
    _, after = scene.stage.fetched()
    assert 0 < after - before <= scene.compressed_bytes / 10
    assert engine.run(scene.thin) == expected  # the image's own command
    _, again = scene.stage.fetched()
    assert again - after < 20_000  # a manifest, perhaps


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
