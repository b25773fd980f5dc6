"""``cvmfs-graphdriver repo resign``: renew the whitelist for another month."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options

__all__ = ["command"]


@click.command("resign")
@repository_options
def command(fqrn: str, storage: Path | None, keys: Path) -> None:
    """Renew the whitelist of REPO; clients reject REPO once it has expired.

    Needs the master key. Prints the new expiry time.
    """
    whitelist = open_repository(fqrn, storage, keys).resign()
    click.echo(f"{whitelist.expires:%Y-%m-%dT%H:%M:%SZ}")
