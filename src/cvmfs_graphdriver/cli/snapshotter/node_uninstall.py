"""``cvmfs-graphdriver snapshotter node-uninstall``: take back what node-install did."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.snapshotter.installing import NAME, engine_option, node_options
from cvmfs_graphdriver.snapshotter.installation.node import NodeInstallation
from cvmfs_graphdriver.snapshotter.installation.plan import HostEngine

__all__ = ["command"]


@click.command("node-uninstall")
@engine_option
@node_options
def command(engine: str, root: Path, *, start: bool) -> None:
    """Take back what node-install did on a host.

    Containers that run go on: their mounts, and the processes and files that these need, stay. So does the
    state in /var/lib/cvmfs-snapshotter.
    """
    NodeInstallation(root, HostEngine(engine), start, click.echo).uninstall(NAME)
