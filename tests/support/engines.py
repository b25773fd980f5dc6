"""Docker with our plugin, started from a copy of an installed one: installing takes ten times as long.

Owns: the engine whose plugins are copied. Settings, and being enabled, are each engine's own. What a dockerd
does not save before a plugin is enabled, such as the name to upgrade it by, is lost in a copy: tests of the
plugin's own life install it.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.daemons import DockerEngine, plugin_tarball
from demo.installation import HERE, Installation
from tests.support.project import PROJECT

__all__ = ["Plugins"]


class Plugins:
    """What each Docker keeps of our plugin after ``docker plugin create``, below ``scratch``."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._installed: dict[Installation, Path] = {}

    @contextmanager
    def engine(
        self,
        scratch: Path,
        name: str,
        etc: Path,
        *,
        installation: Installation = HERE,
        settings: Sequence[str] = (),
    ) -> Iterator[DockerEngine]:
        """An engine with the plugin as its storage driver, without images and with an empty cache."""
        with DockerEngine(scratch, name, installation) as engine:
            (engine.directory / "data").mkdir()
            _copy(self._of(installation), engine.directory / "data/plugins")
            engine.start("overlay2")
            engine.enable_plugin(etc, settings=settings)
            engine.stop()
            engine.start("cvmfs")
            yield engine

    def _of(self, installation: Installation) -> Path:
        if installation not in self._installed:
            kept = self._scratch / f"plugins-{len(self._installed)}"
            with DockerEngine(self._scratch, "installing", installation) as engine:
                engine.start("overlay2")
                engine.create_plugin(plugin_tarball(PROJECT))
                engine.stop()
                (engine.directory / "data/plugins").rename(kept)
            self._installed[installation] = kept
        return self._installed[installation]


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)
