"""``cvmfs-graphdriver repo rollback``: publish an old revision's content again."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import settings_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options, wait_option
from cvmfs_graphdriver.publisher.tags import roll_back
from cvmfs_graphdriver.repository.history import TRUNK_PREVIOUS

__all__ = ["command"]


@click.command("rollback")
@repository_options
@click.option(
    "-t",
    "--tag",
    default=TRUNK_PREVIOUS,
    show_default=True,
    metavar="NAME",
    help="The revision to go back to.",
)
@settings_option
@wait_option
def command(
    fqrn: str, storage: Path | None, keys: Path, tag: str, settings: Path | None, wait: float
) -> None:
    """Publish the content of REPO at a tag again, as a new revision.

    Other tags stay where they are; trunk-previous becomes the revision that was current. Prints the number of
    the new revision.
    """
    click.echo(roll_back(open_repository(fqrn, storage, keys, settings), tag, wait=wait).revision)
