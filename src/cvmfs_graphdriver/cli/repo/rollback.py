"""``cvmfs-graphdriver repo rollback``: the content of an old revision as the newest one."""

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
    "-t", "--tag", default=TRUNK_PREVIOUS, show_default=True, metavar="NAME", help="Where to go back to."
)
@settings_option
@wait_option
def command(
    fqrn: str, storage: Path | None, keys: Path, tag: str, settings: Path | None, wait: float
) -> None:
    """Publish what REPO held at a tag again, as a new revision.

    Tags stay where they are; trunk-previous is then the revision that was left. Prints the number of the new
    revision.
    """
    click.echo(roll_back(open_repository(fqrn, storage, keys, settings), tag, wait=wait).revision)
