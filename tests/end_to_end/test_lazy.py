"""A container of a thin image fetches what it reads, and little else."""

import pytest

from demo.daemons import DockerEngine, plugin_tarball
from demo.images import COMMAND
from demo.installation import Installation
from tests.end_to_end.conftest import Scene
from tests.support.project import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.docker]


def test_starting_fetches_at_most_a_tenth_of_the_image(
    scene: Scene, stock: DockerEngine, installation: Installation
) -> None:
    """The same answer as on stock Docker, for a tenth of the bytes; a second start fetches nothing."""
    expected = stock.run(scene.normal, *COMMAND)
    with DockerEngine(scene.stage.scratch, "lazy", installation) as engine:
        engine.start_with_plugin(plugin_tarball(PROJECT), scene.stage.etc)
        engine.docker("pull", "--quiet", scene.thin)
        _, before = scene.stage.fetched()
        assert engine.run(scene.thin, *COMMAND) == expected
        _, after = scene.stage.fetched()
        assert 0 < after - before <= scene.compressed_bytes / 10
        assert engine.run(scene.thin) == expected  # the image's own command
        _, again = scene.stage.fetched()
        assert again - after < 20_000  # a manifest, perhaps
