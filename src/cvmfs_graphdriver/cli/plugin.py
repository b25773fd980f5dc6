"""``cvmfs-graphdriver plugin``: the process in Docker's plugin container."""

import os
from pathlib import Path

import click

from cvmfs_graphdriver.graphdriver.layer_upload import LayerUploader
from cvmfs_graphdriver.graphdriver.plugin import run_plugin
from cvmfs_graphdriver.graphdriver.settings import PluginSettings
from cvmfs_graphdriver.kernel.logline import log_to_terminal
from cvmfs_graphdriver.layers.idmap import Owners
from cvmfs_graphdriver.planes.choice import choose_plane

__all__ = ["command"]

_NOBODY = 65534


@click.command()
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=Path("/run/docker/plugins/plugin.sock"),
    show_default=True,
    help="The socket through which Docker calls the plugin.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    default=Path("/mnt"),
    show_default=True,
    help="The plugin's propagated mount, which contains all layers and mounts.",
)
@click.option(
    "--etc",
    type=click.Path(path_type=Path),
    default=Path("/cvmfs_ext_config"),
    show_default=True,
    help="The configuration of CernVM-FS, normally the host's /etc/cvmfs.",
)
@click.option(
    "--commit",
    type=click.Path(path_type=Path),
    default=Path("/minio_ext_config"),
    show_default=True,
    help="The directory of the optional config.json, which names the publisher of new layers.",
)
def command(socket: Path, base: Path, etc: Path, commit: Path) -> None:
    """Serve Docker's graph driver protocol until SIGTERM; for use in the plugin's container."""
    settings = PluginSettings.parse(os.environ)
    log_to_terminal("%(levelname)s %(name)s: %(message)s", settings.level.upper())
    run_plugin(
        socket,
        base,
        lambda home, owners: choose_plane(
            settings.plane, home, etc, _overrides(home, settings.quota) | _maps(home, owners)
        ),
        LayerUploader(commit),
        idle=settings.idle,
        boot_wait=settings.boot_wait,
        problems=settings.problems,
    )


def _overrides(home: Path, quota: int | None) -> dict[str, str]:
    """Parameters that override the host's configuration: the plugin's disk, and what images require."""
    overrides = {
        "CVMFS_CACHE_BASE": str(home / "cache"),
        "CVMFS_SHARED_CACHE": "yes",
        "CVMFS_CLAIM_OWNERSHIP": "no",
        "CVMFS_CHECK_PERMISSIONS": "yes",
        "CVMFS_SUID": "yes",
    }
    if quota is not None:
        overrides["CVMFS_QUOTA_LIMIT"] = str(quota)
    return overrides


def _maps(home: Path, owners: Owners) -> dict[str, str]:
    """Maps of owners, in the file format of CernVM-FS clients, if containers have user namespaces."""
    found = {}
    for name, id_map in (("CVMFS_UID_MAP", owners.users), ("CVMFS_GID_MAP", owners.groups)):
        if id_map.ranges:
            path = home / f".{name.lower()}"
            numbers = (
                number for each in id_map.ranges for number in range(each.inside, each.inside + each.size)
            )
            # Other owners become nobody, rather than whoever has that number on this machine.
            lines = [f"{number} {id_map.outward(number)}\n" for number in numbers]
            path.write_text("".join([*lines, f"* {_NOBODY}\n"]))
            found[name] = str(path)
    return found
