"""``cvmfs-graphdriver snapshotter node-install``: what the container on a node of a cluster runs."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.snapshotter.installing import (
    NAME,
    SOCKET,
    STATE,
    engine_option,
    node_options,
    runtime_options,
)
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting
from cvmfs_graphdriver.snapshotter.installation.node import NodeInstallation
from cvmfs_graphdriver.snapshotter.installation.plan import HostEngine

__all__ = ["command"]


@click.command("node-install")
@engine_option
@node_options
@runtime_options
@click.option(
    "--configuration",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Files below DIR/cvmfs and DIR/cvmfs-snapshotter are written to /etc of the host, "
    "unless somebody else has written them.",
)
def command(
    engine: str, root: Path, runtime_class: str, configuration: Path | None, *, remap_ids: bool, start: bool
) -> None:
    """Put this program onto a host as a service, and make its engine use it.

    For the image that 'make snapshotter-image' builds; deploy/kubernetes/ runs it on every node. The
    snapshotter is started by the host's systemd, and the engine is restarted when its configuration has
    changed. Running it again upgrades, or changes nothing.

    Example: cvmfs-graphdriver snapshotter node-install --engine containerd --root /host
    """
    capabilities = ("remap-ids",) if remap_ids else ()
    setting = PluginSetting(NAME, SOCKET, STATE, runtime_class=runtime_class, capabilities=capabilities)
    NodeInstallation(root, HostEngine(engine), start, click.echo).install(setting, configuration)
