"""What an installation changes: the files of each engine, below the root directory of a host.

Owns: where engines have their files. Must not know: what is written into them.
"""

import subprocess
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation import containerd, docker, k3s
from cvmfs_graphdriver.snapshotter.installation.change import BACKUP, FileChange, read
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting
from cvmfs_graphdriver.snapshotter.installation.unit import unit

__all__ = ["Host", "HostEngine", "plan_installation", "plan_removal"]

_CONTAINERD = "etc/containerd/config.toml"
_DROP_IN = "etc/containerd/conf.d/cvmfs-snapshotter.toml"
_DOCKER = "etc/docker/daemon.json"
_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_K3S = "etc/rancher/k3s/config.yaml.d/cvmfs-snapshotter.yaml"
_K3S_TEMPLATES = {
    2: "var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
    3: "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
}
_UNIT = "etc/systemd/system/cvmfs-snapshotter.service"


class HostEngine(StrEnum):
    """Who asks the snapshotter."""

    DOCKER = "docker"
    CONTAINERD = "containerd"
    K3S = "k3s"


@dataclass(frozen=True, slots=True)
class Host:
    """A host's root directory, and the major version of its containerd (None: ask containerd)."""

    root: Path = Path("/")
    containerd: int | None = None

    def setting(self, setting: PluginSetting, engine: HostEngine) -> PluginSetting:
        """The setting in the form that this host's containerd reads. Raises InstallationError."""
        major = self.containerd
        if major is None:
            major = containerd.parse_version(
                _version(self.root, "k3s" if engine is HostEngine.K3S else "containerd")
            )
        main = None if engine is HostEngine.K3S else read(self.root / _CONTAINERD)
        pods = setting.pods and engine is HostEngine.CONTAINERD
        form = containerd.form_of(main, default=min(major + 1, 3))
        return replace(setting, major=major, form=form, pods=pods)


def plan_installation(
    engine: HostEngine, host: Host, setting: PluginSetting, program: str
) -> list[FileChange]:
    """The changes that make an engine use the snapshotter; ``program`` is the command that serves it.

    Raises InstallationError.
    """
    setting = host.setting(setting, engine)
    changes = [_change(host, _UNIT, unit(program))]
    if engine is HostEngine.K3S:
        template = _K3S_TEMPLATES[setting.form]
        added = k3s.with_snapshotter(read(host.root / template), setting)
        return [*changes, _change(host, template, added), _change(host, _K3S, k3s.settings_file(setting))]
    main = containerd.with_snapshotter(read(host.root / _CONTAINERD), setting)
    changes += [_change(host, _DROP_IN, containerd.drop_in(setting)), _change(host, _CONTAINERD, main)]
    if engine is HostEngine.DOCKER:
        settings = docker.with_snapshotter(read(host.root / _DOCKER), setting.name, _CONTAINERD_SOCKET)
        changes.append(_change(host, _DOCKER, settings))
    return changes


def plan_removal(engine: HostEngine, host: Host, name: str) -> list[FileChange]:
    """The changes that take an installation back. Raises InstallationError."""
    if engine is HostEngine.K3S:
        changes = [_change(host, _K3S, None)]
        for template in _K3S_TEMPLATES.values():
            kept = k3s.without_snapshotter(read(host.root / template), _original(host, template))
            changes.append(_change(host, template, kept))
        return [*changes, _change(host, _UNIT, None)]
    main = containerd.without_snapshotter(read(host.root / _CONTAINERD), _original(host, _CONTAINERD), name)
    changes = [_change(host, _CONTAINERD, main), _change(host, _DROP_IN, None), _change(host, _UNIT, None)]
    if engine is HostEngine.DOCKER:
        settings = docker.without_snapshotter(read(host.root / _DOCKER), _original(host, _DOCKER))
        changes.insert(0, _change(host, _DOCKER, settings))
    return changes


def _change(host: Host, path: str, after: bytes | None) -> FileChange:
    place = host.root / path
    return FileChange(place, read(place), after)


def _original(host: Host, path: str) -> bytes | None:
    return read(Path(f"{host.root / path}{BACKUP}"))


def _version(root: Path, program: str) -> str:
    arguments = ["ctr", "--version"] if program == "k3s" else ["--version"]
    places = (root / "usr/local/bin" / program, root / "usr/bin" / program, root / "bin" / program)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise InstallationError(
            f"no {program} found below {root}; is the engine installed? (--containerd-version)"
        )
    try:
        result = subprocess.run(
            [found, *arguments], capture_output=True, check=True, timeout=30, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallationError(f"cannot ask {found} for its version: {error}") from error
    return result.stdout.decode(errors="replace")
