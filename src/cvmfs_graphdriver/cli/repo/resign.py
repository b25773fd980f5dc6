"""``cvmfs-graphdriver repo resign``: a whitelist that is good for another month."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options

__all__ = ["command"]


@click.command("resign")
@repository_options
def command(fqrn: str, storage: Path | None, keys: Path) -> None:
    """Sign the whitelist of REPO anew; without that, clients refuse REPO when it has expired.

    Needs the master key. Prints until when it is good.
    """
    whitelist = open_repository(fqrn, storage, keys).resign()
    click.echo(f"{whitelist.expires:%Y-%m-%dT%H:%M:%SZ}")
