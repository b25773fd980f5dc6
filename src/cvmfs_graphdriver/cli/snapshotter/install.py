"""``cvmfs-graphdriver snapshotter install``: make an engine use the snapshotter."""

import os
import sys
from pathlib import Path

import click

from cvmfs_graphdriver.cli.snapshotter.installing import (
    NAME,
    SOCKET,
    STATE,
    carry_out,
    installation_options,
    runtime_options,
)
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting
from cvmfs_graphdriver.snapshotter.installation.plan import Host, HostEngine, plan_installation

__all__ = ["command"]


@click.command("install")
@installation_options
@runtime_options
@click.option(
    "--containerd-version",
    type=click.Choice(["1", "2"]),
    help="The major version of the host's containerd (default: ask it).",
)
@click.option(
    "--program",
    metavar="PATH",
    help="The cvmfs-graphdriver that serves, as the host sees it (default: this one).",
)
def command(
    engine: str,
    root: Path,
    runtime_class: str,
    containerd_version: str | None,
    program: str | None,
    *,
    dry_run: bool,
    remap_ids: bool,
) -> None:
    """Write the configuration by which an engine uses the snapshotter, and the snapshotter's unit.

    Shows every change as a diff. Files that existed are kept as FILE.before-cvmfs-snapshotter. Running it
    again changes nothing. No service is restarted.

    Example: cvmfs-graphdriver snapshotter install --engine docker --dry-run
    """
    setting = PluginSetting(
        NAME,
        SOCKET,
        STATE,
        runtime_class=runtime_class,
        capabilities=("remap-ids" if remap_ids else "only-remap-ids",),
    )
    host = Host(root, None if containerd_version is None else int(containerd_version))
    changes = plan_installation(HostEngine(engine), host, setting, program or os.path.abspath(sys.argv[0]))
    carry_out(changes, dry_run=dry_run, host=host, back=False, engine=engine)
