"""``cvmfs-graphdriver cache wipe``: empty a cache."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_eviction
from cvmfs_graphdriver.cli.options import etc_option

__all__ = ["command"]


@click.command("wipe")
@click.argument("repository")
@click.option("--yes", is_flag=True, help="Do not ask.")
@etc_option
def command(repository: str, etc: Path, *, yes: bool) -> None:
    """Remove everything from the cache of REPOSITORY, which other repositories may share.

    What is pinned stays, and so do the catalogs that a mounted repository has open.
    """
    with open_eviction(repository, etc) as eviction:
        before = eviction.usage()[0]
        if not yes:
            click.confirm(f"Remove {before} bytes from {eviction.directory}?", abort=True, err=True)
        left = eviction.shrink(0)
    click.echo(f"{before - left} bytes removed, {left} left", err=True)
