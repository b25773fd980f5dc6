"""``cvmfs-graphdriver repo resign``: renew the whitelist for another month."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import settings_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options, wait_option
from cvmfs_graphdriver.publisher.renewal import renew

__all__ = ["command"]


@click.command("resign")
@repository_options
@settings_option
@wait_option
def command(fqrn: str, storage: Path | None, keys: Path, settings: Path | None, wait: float) -> None:
    """Sign the whitelist of REPO anew; without that, clients refuse REPO when it has expired.

    Needs the master key. Prints until when it is good. Where earlier versions stored the certificate or the
    metainfo in a form that stratum 1 servers cannot copy, both are stored anew, and the manifest is signed
    as well.
    """
    whitelist = renew(open_repository(fqrn, storage, keys, settings, warn=False), wait=wait)
    click.echo(f"{whitelist.expires:%Y-%m-%dT%H:%M:%SZ}")
