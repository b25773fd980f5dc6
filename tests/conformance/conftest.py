"""Two engines, one suite: each test runs against stock overlay2 and against our driver."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.daemons import DockerEngine
from demo.installation import Installation
from tests.support.engines import Plugins
from tests.support.layer_life import Life, LifeInDocker, LifeInProtocol
from tests.support.plugin_process import running_plugin


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cvmfs-conformance-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def stock(scratch: Path, installation: Installation) -> Iterator[DockerEngine]:
    """A dockerd with overlay2."""
    with DockerEngine(scratch, "stock", installation) as running:
        running.start("overlay2")
        yield running


@pytest.fixture(scope="session")
def ours(scratch: Path, plugins: Plugins, installation: Installation) -> Iterator[DockerEngine]:
    """A dockerd with our plugin."""
    (scratch / "etc").mkdir()
    with plugins.engine(scratch, "ours", scratch / "etc", installation=installation) as running:
        yield running


@pytest.fixture(scope="session", params=["stock", "ours"])
def engine(request: pytest.FixtureRequest) -> DockerEngine:
    """One of the two."""
    found: DockerEngine = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def overlay2(stock: DockerEngine) -> Life:
    """What the others are compared with."""
    return LifeInDocker(stock)


@pytest.fixture(scope="session", params=["docker", "protocol"])
def life(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Life]:
    """Our driver below Docker, and called by the protocol."""
    if request.param == "docker":
        yield LifeInDocker(request.getfixturevalue("ours"))
    else:
        directory = scratch / "protocol"
        directory.mkdir()
        with running_plugin(directory) as plugin:
            plugin.init()
            yield LifeInProtocol(plugin)
