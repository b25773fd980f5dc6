"""``cvmfs-graphdriver snapshotter doctor``: what is wrong on this host, and what to do."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.findings import show_findings
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.cli.snapshotter.options import configuration_option
from cvmfs_graphdriver.snapshotter.doctor.examination import examine
from cvmfs_graphdriver.snapshotter.errors import UnfitHostError

__all__ = ["command"]


@click.command("doctor")
@configuration_option
@json_option
def command(file: Path, *, as_json: bool) -> None:
    """Check everything that the snapshotter needs, and say what to do: kernel, disk, engines, repositories.

    Nothing is changed. The exit status is 97 if something is in the way of lazy images.
    """
    errors = show_findings(examine(file), as_json=as_json)
    if errors:
        raise UnfitHostError(f"lazy images are not possible: {errors} error{'s' * (errors > 1)} above")
