"""``cvmfs-graphdriver repo create``: a new repository, empty and signed."""

import shutil
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import storage_option
from cvmfs_graphdriver.publisher.creation import check_fqrn, create_repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.storage.upstream import create_storage

__all__ = ["command"]


@click.command("create")
@click.argument("fqrn", metavar="REPO")
@storage_option
@click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=Path("/etc/cvmfs/keys"),
    show_default=True,
    help="Where its keys go.",
)
def command(fqrn: str, storage: Path | None, keys: Path) -> None:
    """Create the empty repository REPO, e.g. images.example.org, with new keys.

    Prints the file of the public key: every client needs a copy of that one, and of none other.
    """
    check_fqrn(fqrn)
    layout = create_storage(storage, fqrn)  # refuses a place that is not empty
    try:
        create_repository(fqrn, layout, keys)
    except BaseException:
        if isinstance(layout, LocalStorage):  # half a repository would be in the way of the next attempt
            shutil.rmtree(layout.directory, ignore_errors=True)
        raise
    click.echo(keys / f"{fqrn}.pub")
