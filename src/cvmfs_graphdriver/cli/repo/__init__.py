"""``cvmfs-graphdriver repo``: the table of commands for repositories published here."""

import click

from cvmfs_graphdriver.cli.entry import LazyGroup

__all__ = ["command"]

_HERE = "cvmfs_graphdriver.cli.repo"


@click.group(
    "repo",
    cls=LazyGroup,
    commands_at={
        "create": f"{_HERE}.create:command",
        "info": f"{_HERE}.info:command",
        "ingest": f"{_HERE}.ingest:command",
        "remove": f"{_HERE}.remove:command",
        "tag": f"{_HERE}.tag:command",
        "rollback": f"{_HERE}.rollback:command",
        "resign": f"{_HERE}.resign:command",
        "check": f"{_HERE}.check:command",
        "gc": f"{_HERE}.gc:command",
        "serve": f"{_HERE}.serve:command",
    },
)
def command() -> None:
    """Create, fill, check and serve repositories for converted images."""
