"""``cvmfs-graphdriver snapshotter config``: the snapshotter's configuration file."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.snapshotter.installing import configuration_option
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Check the configuration of the snapshotter."""


@command.command("check")
@configuration_option
def check(file: Path) -> None:
    """Say which lines of the configuration file are wrong, and what to write instead."""
    SnapshotterConfiguration.read(file)
    click.echo(f"{file}: no mistakes")
