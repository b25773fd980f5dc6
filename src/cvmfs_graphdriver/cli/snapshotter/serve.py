"""``cvmfs-graphdriver snapshotter serve``: the process that containerd calls."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.snapshotter.installing import configuration_option
from cvmfs_graphdriver.kernel.logline import log_to_terminal
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.process import run_snapshotter

__all__ = ["command"]


@click.command("serve")
@configuration_option
def command(file: Path) -> None:
    """Serve containerd's snapshots protocol until SIGTERM."""
    configuration = SnapshotterConfiguration.read(file)
    log_to_terminal("%(levelname)s %(name)s: %(message)s", configuration.log_level.upper())
    run_snapshotter(configuration)
