"""``cvmfs-graphdriver cache wipe``: empty a cache."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_eviction
from cvmfs_graphdriver.cli.options import etc_option

__all__ = ["command"]


@click.command("wipe")
@click.argument("repository")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@etc_option
def command(repository: str, etc: Path, *, yes: bool) -> None:
    """Remove everything from the cache of REPOSITORY, which other repositories may share.

    Pinned objects and the open catalogs of mounted repositories are kept.
    """
    with open_eviction(repository, etc) as eviction:
        before = eviction.usage()[0]
        if not yes:
            click.confirm(f"Remove {before} bytes from {eviction.directory}?", abort=True, err=True)
        left = eviction.shrink(0)
    click.echo(f"{before - left} bytes removed, {left} left", err=True)
