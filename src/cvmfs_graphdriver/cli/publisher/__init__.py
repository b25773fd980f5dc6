"""``cvmfs-graphdriver publisher``: the table of commands for release managers' machines."""

import click

from cvmfs_graphdriver.cli.entry import LazyGroup

__all__ = ["command"]


@click.group(
    "publisher",
    cls=LazyGroup,
    commands_at={"serve": "cvmfs_graphdriver.cli.publisher.serve:command"},
)
def command() -> None:
    """Publish what nodes upload."""
