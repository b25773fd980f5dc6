"""``cvmfs-graphdriver config``: the table of commands for a repository's configuration."""

import click

from cvmfs_graphdriver.cli.entry import LazyGroup

__all__ = ["command"]

_HERE = "cvmfs_graphdriver.cli.config"


@click.group(
    "config",
    cls=LazyGroup,
    commands_at={
        "check": f"{_HERE}.check:command",
        "show": f"{_HERE}.show:command",
    },
)
def command() -> None:
    """Show and check the configuration of repositories."""
