"""Putting the snapshotter onto a node of a cluster from a container, and taking it back.

Owns: the order of the steps. The engine is told of the snapshotter only when that serves, and forgets it
before that ends. Each step may be interrupted, and is done again by the next run. Must not know: what the
steps do.

Everything after the copy happens within the host's root directory, as if the program ran there: it has the
same path there as in the image.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation import tree
from cvmfs_graphdriver.snapshotter.installation.change import FileChange
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting
from cvmfs_graphdriver.snapshotter.installation.given_files import GivenFiles, read_given
from cvmfs_graphdriver.snapshotter.installation.plan import (
    Host,
    HostEngine,
    plan_installation,
    plan_removal,
)
from cvmfs_graphdriver.snapshotter.installation.systemd import exists, systemctl

__all__ = ["NodeInstallation"]

_SERVICES: Final = {
    HostEngine.CONTAINERD: ("containerd.service",),
    HostEngine.DOCKER: ("containerd.service", "docker.service"),
    HostEngine.K3S: ("k3s.service", "k3s-agent.service"),
}
_NOTES: Final = Path("/run/cvmfs-snapshotter-installation")


@dataclass(frozen=True, slots=True)
class NodeInstallation:
    """A host's root directory as the container sees it, and the engine on it.

    Without ``start``, files are written, and systemd is not asked for anything. ``say`` takes lines of text.
    """

    root: Path
    engine: HostEngine
    start: bool = True
    say: Callable[[str], None] = field(default=print)

    def install(self, setting: PluginSetting, given: Path | None) -> None:
        """Install or upgrade; ``given`` is a directory with configuration files. Raises InstallationError."""
        files = None if given is None else read_given(given)
        version = tree.copy_to(self.root)
        self._enter()
        service = f"{setting.name}.service"
        restart = _Note(service)
        restart.wanted |= tree.make_current(version)
        if files is not None:
            changed, foreign = GivenFiles().write(files)
            restart.wanted |= changed
            for path in foreign:
                self._say(f"{path} was written by somebody else and is left alone")
        unit, *others = plan_installation(self.engine, Host(), setting, str(tree.PROGRAM))
        restart.wanted |= unit.needed
        self._make([unit])
        if self.start:
            systemctl("daemon-reload")
            systemctl("enable", service)
            systemctl("restart" if restart.wanted else "start", service)
        restart.forget()
        engine = _Note(self.engine.value)
        engine.wanted |= any(change.needed for change in others)
        self._make(others)
        kept = tree.remove_unused()
        self._say(f"{version.name} is installed{_besides(kept)}")
        self._restart_engine(engine)

    def uninstall(self, name: str) -> None:
        """Take everything back but the state; running containers go on. Raises InstallationError."""
        tree.copy_to(self.root)
        self._enter()
        *others, unit = plan_removal(self.engine, Host(), name)
        engine = _Note(self.engine.value)
        engine.wanted |= any(change.needed for change in others)
        for change in others:
            self._show(change)
            change.take_back()
        self._restart_engine(engine)
        service = f"{name}.service"
        if self.start and exists(service):
            systemctl("disable", "--now", service)
        self._show(unit)
        unit.take_back()
        if self.start:
            systemctl("daemon-reload")
        GivenFiles().remove()
        kept = tree.remove_all()
        self._say(f"{name} is uninstalled{_besides(kept)}")

    def _say(self, text: str) -> None:
        # The engine that restarts may be the one that reads this.
        with suppress(OSError):
            self.say(text)

    def _enter(self) -> None:
        try:
            os.chroot(self.root)
            os.chdir("/")
        except OSError as error:
            raise InstallationError(f"cannot enter {self.root}: {error.strerror}") from error

    def _make(self, changes: list[FileChange]) -> None:
        for change in changes:
            self._show(change)
            if change.needed:
                change.install()

    def _show(self, change: FileChange) -> None:
        if change.needed:
            self._say(change.difference().removesuffix("\n"))

    def _restart_engine(self, note: "_Note") -> None:
        if note.wanted and self.start:
            for service in _SERVICES[self.engine]:
                if exists(service):
                    self._say(f"restarting {service}")
                    systemctl("try-restart", service)
        note.forget()


class _Note:
    """That a service may have to be restarted: until the next boot, or until it is forgotten."""

    def __init__(self, name: str) -> None:
        self._path = _NOTES / name
        self.wanted = self._path.exists()
        try:
            _NOTES.mkdir(mode=0o700, exist_ok=True)
            self._path.touch()
        except OSError as error:
            raise InstallationError(f"cannot write {self._path}: {error.strerror}") from error

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def _besides(kept: list[Path]) -> str:
    if not kept:
        return ""
    return f"; processes still use {', '.join(path.name for path in kept)}"
