"""containerd's configuration with the snapshotter as a proxy plugin, and without it again.

Owns: the drop-in file, and what the main file must say so that it counts. Must not know: files, other
engines.

containerd 2.0 and later merge the tables of a plugin from several files; earlier ones take the whole table of
a plugin from the last file that has it. So in the form that these read, the CRI plugin's setting goes into
the main file.
"""

import platform
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from cvmfs_graphdriver.snapshotter.errors import InstallationError

__all__ = [
    "DROP_INS",
    "PluginSetting",
    "drop_in",
    "form_of",
    "parse_version",
    "with_snapshotter",
    "without_snapshotter",
]

DROP_INS = "/etc/containerd/conf.d/*.toml"
"""The files that the main file imports; it is containerd's own default from 2.2 on."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}
_OLDEST_FORM = 2
_NEW_FORM = 3
_MERGING = 2  # containerd's major version
_NO_ANNOTATIONS = "disable_snapshot_annotations"
_RUNC = "io.containerd.runc.v2"
_OLD_CRI = ("plugins", "io.containerd.grpc.v1.cri", "containerd")
_IMAGES = ("plugins", "io.containerd.cri.v1.images")
_RUNTIME = ("plugins", "io.containerd.cri.v1.runtime", "containerd")


@dataclass(frozen=True, slots=True)
class PluginSetting:
    """What is to be configured.

    ``major`` is containerd's major version, ``form`` that of its configuration's form: containerd 1 reads
    form 2, containerd 2 reads form 3, and form 2 as well. ``pods`` says whether Kubernetes uses the
    snapshotter: for every pod, or, if ``runtime_class`` is not empty, for pods of that class.
    ``capabilities`` are those that the snapshotter announces.
    """

    name: str
    socket: str
    state: str
    major: int = 2
    form: int = 3
    pods: bool = True
    runtime_class: str = ""
    capabilities: tuple[str, ...] = ()


def parse_version(output: str) -> int:
    """The major version of a containerd, from what ``containerd --version`` prints.

    Raises InstallationError.
    """
    for word in output.split():
        major = word.removeprefix("v").partition(".")[0]
        if major.isdigit() and "." in word:
            return int(major)
    raise InstallationError(f"cannot tell the version of containerd from {output.strip()[:80]!r}")


def drop_in(setting: PluginSetting) -> bytes:
    """The drop-in file: the proxy plugin, and, for containerd 2, the plugins that are to use it."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by cvmfs-graphdriver snapshotter install; uninstall removes it."))
    document["version"] = setting.form
    plugin = {
        "type": "snapshot",
        "address": setting.socket,
        "capabilities": list(setting.capabilities),
        "exports": {"root": setting.state, "enable_remote_snapshot_annotations": "true"},
    }
    document["proxy_plugins"] = {setting.name: plugin}
    if setting.major >= _MERGING:
        # An entry of ours alone would take the place of containerd's own.
        unpack = [{"platform": _platform(), "snapshotter": name} for name in ("overlayfs", setting.name)]
        plugins: dict[str, object] = {"io.containerd.transfer.v1.local": {"unpack_config": unpack}}
        document["plugins"] = plugins
        if setting.form >= _NEW_FORM:
            _set_pods(document, setting)
    return tomlkit.dumps(document).encode()


def with_snapshotter(content: bytes | None, setting: PluginSetting) -> bytes:
    """The main file, importing the drop-ins; comments and other settings are kept.

    Raises InstallationError.
    """
    if content is None:
        content = b"version = %d\n" % setting.form
    document = _parse(content)
    imports = document.get("imports")
    if imports is None:
        document = _parse(b'imports = ["%b"]\n' % DROP_INS.encode() + content)
    elif not isinstance(imports, Array):
        raise InstallationError("imports in containerd's configuration is not a list; mend it first")
    elif DROP_INS not in imports:
        imports.append(DROP_INS)
    if setting.form < _NEW_FORM:
        _set_pods(document, setting)
    return tomlkit.dumps(document).encode()


def without_snapshotter(content: bytes | None, original: bytes | None, name: str) -> bytes | None:
    """The main file as it would be without the installation; ``original`` is what was there before it.

    What somebody changed since is kept. None: there is no need for the file. Raises InstallationError.
    """
    if content is None:
        return None
    document, before = _parse(content), _parse(original or b"version = 2\n")
    if "imports" not in before and document.get("imports") == [DROP_INS]:
        del document["imports"]
    elif DROP_INS in document.get("imports", ()) and DROP_INS not in before.get("imports", ()):
        document["imports"].remove(DROP_INS)
    _unset_pods(document, before, name)
    if document.unwrap() == before.unwrap():
        return original
    if original is None and set(document) <= {"version"}:
        return None
    return tomlkit.dumps(document).encode()


def form_of(content: bytes | None, default: int) -> int:
    """The version of a main file's form. Raises InstallationError: it is older than 2."""
    if content is None:
        return default
    document = _parse(content)
    form = document.get("version", 1 if document else default)
    if not isinstance(form, int) or form < _OLDEST_FORM:
        raise InstallationError(
            "containerd's configuration has the form of version 1; convert it first: "
            "containerd config migrate > config.new"
        )
    return int(form)


def _parse(content: bytes) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(content)
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise InstallationError(
            f"containerd's configuration is not valid TOML: {error}; mend it first"
        ) from error


def _set_pods(document: tomlkit.TOMLDocument, setting: PluginSetting) -> None:
    if not setting.pods:
        return
    if setting.major < _MERGING:
        # Else a layer is found only by its chain. For containerd 2 the exports of the plugin do that.
        _table(document, _OLD_CRI)[_NO_ANNOTATIONS] = False
    if not setting.runtime_class:
        above = _OLD_CRI if setting.form < _NEW_FORM else _IMAGES
        table = _table(document, above)
        table["snapshotter"] = setting.name
        if setting.form < _NEW_FORM and setting.major >= _MERGING and "runtimes" not in table:
            # containerd 2.1 drops the snapshotter of a configuration in form 2 that has no runtimes.
            _table(table, ("runtimes", "runc"))["runtime_type"] = _RUNC
        return
    if setting.form < _NEW_FORM and setting.major >= _MERGING:
        raise InstallationError(
            "containerd 2 ignores the snapshotter of a runtime class in a configuration of version 2; "
            "convert it first: containerd config migrate > config.new"
        )
    above = _OLD_CRI if setting.form < _NEW_FORM else _RUNTIME
    runtime = _table(document, (*above, "runtimes", setting.runtime_class))
    runtime["runtime_type"] = _RUNC
    runtime["snapshotter"] = setting.name
    if setting.form >= _NEW_FORM:
        choice = _table(document, (*_IMAGES, "runtime_platforms", setting.runtime_class))
        choice["platform"] = _platform()
        choice["snapshotter"] = setting.name


def _unset_pods(document: tomlkit.TOMLDocument, before: tomlkit.TOMLDocument, name: str) -> None:
    cri = _find(document, _OLD_CRI)
    old = _find(before, _OLD_CRI)
    if cri is None:
        return
    for key, ours in (("snapshotter", name), (_NO_ANNOTATIONS, False)):
        if cri.get(key) == ours:
            if key in (old or {}):
                cri[key] = (old or {})[key]
            else:
                del cri[key]
    runtimes = cri.get("runtimes", {})
    known = (old or {}).get("runtimes", {})
    added = [
        key
        for key, value in runtimes.items()
        if value.get("snapshotter") == name or value == {"runtime_type": _RUNC}
    ]
    for runtime in added:
        if runtime not in known:
            del runtimes[runtime]
    for end in range(len(_OLD_CRI) + 1, 0, -1):
        path = (*_OLD_CRI, "runtimes")[:end]
        table, above = _find(document, path), _find(document, path[:-1])
        if table is not None and above is not None and not table and _find(before, path) is None:
            del above[path[-1]]


def _table(document: Any, path: tuple[str, ...]) -> Any:
    for depth, key in enumerate(path):
        if key not in document:
            document[key] = tomlkit.table(is_super_table=depth < len(path) - 1)
        document = document[key]
        if not isinstance(document, MutableMapping):
            raise InstallationError(f"{key} in containerd's configuration is not a table; mend it first")
    return document


def _find(document: Any, path: tuple[str, ...]) -> Any | None:
    for key in path:
        document = document.get(key) if isinstance(document, MutableMapping) else None
    return document


def _platform() -> str:
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"
