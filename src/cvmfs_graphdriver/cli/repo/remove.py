"""``cvmfs-graphdriver repo remove``: remove directories or files, in one revision."""

import os
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import settings_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options, wait_option
from cvmfs_graphdriver.conversion.chains import prune_records
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["command"]


@click.command("remove")
@repository_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@settings_option
@wait_option
def command(
    fqrn: str, storage: Path | None, keys: Path, paths: tuple[str, ...], settings: Path | None, wait: float
) -> None:
    """Remove each PATH and everything below it from REPO.

    Records of layers that are gone (/.chains) are removed with them. Older revisions and the storage keep
    everything. Prints the number of the new revision.
    """
    repository = open_repository(fqrn, storage, keys, settings)
    with Transaction(repository, wait=wait) as transaction:
        for path in paths:
            transaction.remove(b"/" + os.fsencode(path).strip(b"/"))
        prune_records(transaction)
        manifest = transaction.publish()
    click.echo(manifest.revision)
