"""Two engines, one suite: each test runs against stock overlay2 and against our driver."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.daemons import DockerEngine, plugin_tarball
from demo.installation import Installation
from tests.support import PROJECT


@pytest.fixture(scope="session", params=["overlay2", "ours"])
def engine(request: pytest.FixtureRequest, installation: Installation) -> Iterator[DockerEngine]:
    """A dockerd with one of the two drivers."""
    with tempfile.TemporaryDirectory(prefix="cvmfs-conformance-", dir="/var/tmp") as name:
        scratch = Path(name)
        (scratch / "etc").mkdir()
        with DockerEngine(scratch, request.param, installation) as running:
            if request.param == "ours":
                running.start_with_plugin(plugin_tarball(PROJECT), scratch / "etc")
            else:
                running.start("overlay2")
            yield running
