"""What the end-to-end tests share: the stage with the demo's image on it, converted once."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.daemons import DockerEngine
from demo.images import build_image, push_image
from demo.installation import Installation
from demo.stage import Conversion, Stage, stage
from tests.support.engines import Plugins
from tests.support.project import PROJECT


@dataclass(frozen=True, slots=True)
class Scene:
    """The stage, and the demo's image in its registry, normal and thin."""

    stage: Stage
    normal: str
    thin: str
    conversion: Conversion
    compressed_bytes: int


@pytest.fixture(scope="session")
def scene() -> Iterator[Scene]:
    layout = build_image(PROJECT / "build" / "demo")
    with (
        tempfile.TemporaryDirectory(prefix="cvmfs-e2e-", dir="/var/tmp") as scratch,
        stage(Path(scratch)) as set_up,
    ):
        normal, thin = f"{set_up.registry}/demo:1", f"{set_up.registry}/demo:1-thin"
        push_image(layout, normal)
        conversion = set_up.convert(normal, thin)
        size = sum(path.stat().st_size for path in (layout / "blobs/sha256").iterdir())
        yield Scene(set_up, normal, thin, conversion, size)


@pytest.fixture(scope="session")
def stock(scene: Scene, installation: Installation) -> Iterator[DockerEngine]:
    """Stock Docker with overlay2."""
    with DockerEngine(scene.stage.scratch, "stock", installation) as engine:
        engine.start("overlay2")
        yield engine


@pytest.fixture(scope="session")
def ours(scene: Scene, plugins: Plugins, installation: Installation) -> Iterator[DockerEngine]:
    """Docker with our plugin as its storage driver."""
    with plugins.engine(scene.stage.scratch, "ours", scene.stage.etc, installation=installation) as engine:
        yield engine
