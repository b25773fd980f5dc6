"""K3s with the snapshotter: its own setting, and an addition to the template of containerd's configuration.

Owns: both files. Must not know: where the files are, containerd's own configuration.

K3s writes containerd's configuration itself, from a template that an administrator can replace; the name
"base" stands for K3s's own. The setting ``snapshotter`` reaches the CRI plugin by that template, so the
addition may not have that table again.
"""

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting, drop_in

__all__ = ["settings_file", "with_snapshotter", "without_snapshotter"]

_BASE = b'{{ template "base" . }}\n'
_BEGIN = (
    b"# cvmfs-snapshotter: begin; cvmfs-graphdriver snapshotter uninstall --engine k3s removes this part\n"
)
_END = b"# cvmfs-snapshotter: end\n"


def settings_file(setting: PluginSetting) -> bytes:
    """A file of K3s's own configuration (config.yaml.d): which snapshotter pods use."""
    return (
        "# Written by cvmfs-graphdriver snapshotter install; uninstall removes it.\n"
        f"snapshotter: {setting.name}\n"
    ).encode()


def with_snapshotter(template: bytes | None, setting: PluginSetting) -> bytes:
    """The template with the proxy plugin. Raises InstallationError."""
    kept = without_snapshotter(template, None) or _BASE
    if b"proxy_plugins." + setting.name.encode() in kept:
        raise InstallationError(
            f"the template of containerd's configuration has another proxy plugin {setting.name}; remove it"
        )
    lines = drop_in(setting).splitlines(keepends=True)
    plugin = b"".join(line for line in lines if not line.startswith((b"#", b"version")))
    return kept + (b"" if kept.endswith(b"\n") else b"\n") + _BEGIN + plugin.lstrip(b"\n") + _END


def without_snapshotter(template: bytes | None, original: bytes | None) -> bytes | None:
    """The template without it; ``original`` is what was there first. None: no template is needed."""
    if template is None:
        return None
    before, begin, rest = template.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and not end:
        raise InstallationError(
            "the end of our part is missing in the template of containerd's configuration"
        )
    kept = before + after
    return original if original is None and kept == _BASE else kept
