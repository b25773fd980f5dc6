"""``cvmfs-graphdriver snapshotter uninstall``: take an installation back."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.snapshotter.installing import NAME, carry_out, installation_options
from cvmfs_graphdriver.snapshotter.installation.plan import Host, HostEngine, plan_removal

__all__ = ["command"]


@click.command("uninstall")
@installation_options
def command(engine: str, root: Path, *, dry_run: bool) -> None:
    """Take back what install wrote; what was changed otherwise since then is kept."""
    host = Host(root)
    carry_out(
        plan_removal(HostEngine(engine), host, NAME),
        dry_run=dry_run,
        host=host,
        back=True,
        engine=engine,
    )
