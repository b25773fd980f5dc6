"""Whether containerd and Docker are configured to use the snapshotter.

Owns: reading their configuration below a host's root directory, and what in it stands in the way. Must not
know: whether anything is running.
"""

import glob
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cvmfs_graphdriver.client.administration.checkup import Finding, Level
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration

__all__ = ["check_engines"]

_NAME: Final = "cvmfs-snapshotter"
_CONTAINERD: Final = ("etc/containerd/config.toml", "var/lib/rancher/k3s/agent/etc/containerd/config.toml")
_DOCKER: Final = "etc/docker/daemon.json"
_DATA: Final = "/var/lib/docker"
_GRAPH_DRIVERS: Final = ("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "zfs")
_ENVIRONMENT: Final = ("etc/default/docker", "etc/systemd/system/docker.service.d/*.conf")
_DRIVER: Final = re.compile(r"""^[^#\n]*\bDOCKER_DRIVER=["']?([\w.-]+)""", re.MULTILINE)
_INSTALL: Final = "cvmfs-graphdriver snapshotter install --engine"
_NEW_FORM: Final = 3
_TRANSFER: Final = "io.containerd.transfer.v1.local"
_IMAGES: Final = "io.containerd.cri.v1.images"
_OLD_CRI: Final = "io.containerd.grpc.v1.cri"
_DOWNLOADS: Final = 3
"""containerd's default number of downloads at once; with another the transfer service is not used."""


def check_engines(configuration: SnapshotterConfiguration, root: Path) -> Iterator[Finding]:
    """What is wrong with the configuration of engines below ``root``."""
    files = [root / path for path in _CONTAINERD if (root / path).exists()]
    if not files:
        yield _error(f"{root / _CONTAINERD[0]} does not exist: no engine uses the snapshotter", "containerd")
    for file in files:
        engine = "k3s" if "k3s" in file.parts else "containerd"
        try:
            merged = _Containerd.read(file, root)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            yield Finding(Level.ERROR, f"{file} cannot be read: {error}", "correct it")
            continue
        if not merged.table("proxy_plugins", _NAME):
            yield _error(f"{file} has no proxy plugin {_NAME}", engine)
            continue
        yield from _check_plugin(merged, configuration, engine)
        yield from _check_transfer(merged, engine)
        yield from _check_pods(merged)
    yield from _check_docker(root)


@dataclass(frozen=True, slots=True)
class _Containerd:
    """containerd's configuration, with what it imports."""

    values: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path, root: Path) -> Self:
        """Raises OSError, UnicodeDecodeError, TOMLDecodeError."""
        values = tomllib.loads(file.read_text(encoding="utf-8"))
        imports = values.get("imports")
        for pattern in map(str, imports if isinstance(imports, list) else ()):
            where = root / pattern.lstrip("/") if pattern.startswith("/") else file.parent / pattern
            for path in sorted(map(Path, glob.glob(str(where)))):
                if path != file:
                    _merge(values, tomllib.loads(path.read_text(encoding="utf-8")))
        return cls(values)

    def table(self, *keys: str) -> Mapping[str, Any]:
        """A table; empty if it does not exist."""
        found: Any = self.values
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def is_new(self) -> bool:
        """Whether it is in the form of containerd 2."""
        form = self.values.get("version")
        return isinstance(form, int) and form >= _NEW_FORM


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        below = values.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            _merge(below, value)
        else:
            values[key] = value


def _error(what: str, engine: str) -> Finding:
    return Finding(Level.ERROR, what, f"{_INSTALL} {engine}")


def _check_plugin(
    containerd: _Containerd, configuration: SnapshotterConfiguration, engine: str
) -> Iterator[Finding]:
    plugin = containerd.table("proxy_plugins", _NAME)
    address = plugin.get("address")
    if plugin.get("type") != "snapshot" or address != str(configuration.socket):
        what = f"containerd calls {address!r}, but the snapshotter serves {configuration.socket}"
        yield _error(what, engine)
    else:
        yield Finding(Level.OK, f"containerd knows {_NAME} at {address}")
    found = plugin.get("capabilities")
    capabilities = found if isinstance(found, list) else []
    if "rebase" in capabilities:
        yield Finding(
            Level.ERROR,
            f"{_NAME} has the capability rebase: containerd does not say what a layer lies upon, so no layer "
            "is lazy",
            "remove it from capabilities",
        )
    if ("remap-ids" in capabilities) != configuration.remap_ids:
        has = "has" if "remap-ids" in capabilities else "does not have"
        yield Finding(
            Level.ERROR,
            f"{_NAME} {has} the capability remap-ids, but remap_ids is "
            f"{str(configuration.remap_ids).lower()} in our configuration",
            "change one of them: docs/snapshotter.md, User namespaces",
        )
    elif not {"remap-ids", "only-remap-ids"} & set(capabilities):
        yield Finding(
            Level.WARNING,
            "containerd copies the whole image for each container in a user namespace",
            'set capabilities = ["only-remap-ids"]',
        )


def _check_transfer(containerd: _Containerd, engine: str) -> Iterator[Finding]:
    """The transfer service of containerd 2, by which ctr and Kubernetes pull images."""
    if not containerd.is_new:
        return
    entries = containerd.table("plugins", _TRANSFER).get("unpack_config")
    if not any(isinstance(each, dict) and each.get("snapshotter") == _NAME for each in entries or ()):
        yield _error(f"containerd's transfer service does not unpack with {_NAME}: pulls fail", engine)
    images = containerd.table("plugins", _IMAGES)
    registry = images.get("registry")
    registry = registry if isinstance(registry, dict) else {}
    causes = {
        "use_local_image_pull": images.get("use_local_image_pull") is True,
        "disable_snapshot_annotations = false": images.get("disable_snapshot_annotations") is False,
        "discard_unpacked_layers": images.get("discard_unpacked_layers") is True,
        "image_pull_with_sync_fs": images.get("image_pull_with_sync_fs") is True,
        "max_concurrent_downloads": images.get("max_concurrent_downloads", _DOWNLOADS) != _DOWNLOADS,
        **{f"registry.{key}": bool(registry.get(key)) for key in ("mirrors", "configs", "auths")},
    }
    found = ", ".join(cause for cause, applies in causes.items() if applies)
    if found:
        yield Finding(
            Level.WARNING,
            f"Kubernetes' images are pulled without the transfer service because of {found}",
            "images are lazy nevertheless; remove these settings if you do not need them",
        )


def _check_pods(containerd: _Containerd) -> Iterator[Finding]:
    images = containerd.table("plugins", _IMAGES)
    old = containerd.table("plugins", _OLD_CRI, "containerd")
    runtimes = [
        *containerd.table("plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes").items(),
        *containerd.table("plugins", _OLD_CRI, "containerd", "runtimes").items(),
    ]
    if _NAME in (images.get("snapshotter"), old.get("snapshotter")):
        yield Finding(Level.OK, "Kubernetes uses it for every pod")
    for name, runtime in runtimes:
        if isinstance(runtime, dict) and runtime.get("snapshotter") == _NAME:
            yield Finding(Level.OK, f"Kubernetes uses it for pods of the runtime class {name}")


def _check_docker(root: Path) -> Iterator[Finding]:
    file = root / _DOCKER
    try:
        settings: Any = json.loads(file.read_bytes()) if file.exists() else {}
    except (OSError, ValueError) as error:
        yield Finding(Level.ERROR, f"{file} cannot be read: {error}", "correct it")
        return
    settings = settings if isinstance(settings, dict) else {}
    features = settings.get("features")
    explicit = features.get("containerd-snapshotter") if isinstance(features, dict) else None
    if settings.get("storage-driver") != _NAME:
        yield Finding(Level.OK, "Docker does not use the snapshotter")
        return
    if "containerd" not in settings:
        what = "Docker starts a containerd of its own, which knows no other snapshotters"
        yield _error(what, "docker")
    if settings.get("userns-remap"):
        yield Finding(
            Level.ERROR,
            "userns-remap keeps Docker from using containerd's image store",
            f"remove userns-remap from {file}",
        )
    yield from _check_environment(root)
    data = root / str(settings.get("data-root", _DATA)).lstrip("/")
    earlier = [name for name in _GRAPH_DRIVERS if _has_content(data / name)]
    if explicit is not True:
        also = f", above all since {data / earlier[0]} is not empty" if earlier else ""
        yield _error(f"the feature containerd-snapshotter is not set: Docker may ignore it{also}", "docker")
    else:
        yield Finding(Level.OK, "Docker uses the snapshotter")
        for name in earlier:
            what = f"images and containers in {data / name} are not shown by Docker any more"
            yield Finding(Level.WARNING, what, f"remove {data / name} if you do not need them")


def _check_environment(root: Path) -> Iterator[Finding]:
    """The variable by which dockerd's environment overrides the file."""
    for pattern in _ENVIRONMENT:
        for file in sorted(root.glob(pattern)):
            found = _DRIVER.search(file.read_text(encoding="utf-8", errors="replace"))
            if found and found[1] != _NAME:
                what = f"{file} sets DOCKER_DRIVER={found[1]}, which overrides storage-driver"
                yield Finding(Level.ERROR, what, "remove it there, and restart Docker")


def _has_content(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(True for _ in entries)
    except OSError:
        return False
