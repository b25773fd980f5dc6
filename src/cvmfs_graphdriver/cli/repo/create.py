"""``cvmfs-graphdriver repo create``: create an empty, signed repository."""

import shutil
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import keys_option, storage_option
from cvmfs_graphdriver.publisher.creation import check_fqrn, create_repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.storage.upstream import create_storage

__all__ = ["command"]


@click.command("create")
@click.argument("fqrn", metavar="REPO")
@storage_option
@keys_option("Where to store its keys.")
def command(fqrn: str, storage: Path | None, keys: Path) -> None:
    """Create the empty repository REPO, e.g. images.example.org, with new keys.

    Prints the path of the public key, the only key of which every client needs a copy.
    """
    check_fqrn(fqrn)
    layout = create_storage(storage, fqrn)  # refuses a directory that is not empty
    try:
        create_repository(fqrn, layout, keys)
    except BaseException:
        if isinstance(layout, LocalStorage):  # half a repository would be in the way of the next attempt
            shutil.rmtree(layout.directory, ignore_errors=True)
        raise
    click.echo(keys / f"{fqrn}.pub")
