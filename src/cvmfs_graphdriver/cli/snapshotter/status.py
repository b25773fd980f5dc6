"""``cvmfs-graphdriver snapshotter status``: what it has found, and the repositories that it has mounted."""

import json
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.cli.snapshotter.options import configuration_option
from cvmfs_graphdriver.errors import printable
from cvmfs_graphdriver.snapshotter.administration.status import SnapshotterStatus
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration

__all__ = ["command"]


@click.command("status")
@configuration_option
@json_option
def command(file: Path, *, as_json: bool) -> None:
    """Print how many layers are lazy or not, and why; mounted repositories; the cache; what is degraded."""
    status = SnapshotterStatus.of(SnapshotterConfiguration.read(file))
    if as_json:
        click.echo(json.dumps(status.as_json(), indent=2))
        return
    for name, value in status.rows():
        click.echo(f"{printable(name)}: {printable(value)}")
