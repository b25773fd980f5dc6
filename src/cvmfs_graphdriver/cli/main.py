"""The command ``cvmfs-graphdriver``: the table of its subcommands."""

from typing import NoReturn

import click

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.cli.entry import LazyGroup, run

__all__ = ["main"]

_HERE = "cvmfs_graphdriver.cli"


@click.group(
    cls=LazyGroup,
    commands_at={
        "cache": f"{_HERE}.cache:command",
        "config": f"{_HERE}.config:command",
        "metrics": f"{_HERE}.metrics:command",
        "mount": f"{_HERE}.mount:command",
        "plugin": f"{_HERE}.plugin:command",
        "publisher": f"{_HERE}.publisher:command",
        "repo": f"{_HERE}.repo:command",
        "snapshotter": f"{_HERE}.snapshotter:command",
        "status": f"{_HERE}.status:command",
        "talk": f"{_HERE}.talk:command",
        "umount": f"{_HERE}.umount:command",
        "why": f"{_HERE}.why:command",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
def command() -> None:
    """Docker containers straight from CernVM-FS repositories."""


def main() -> NoReturn:
    """The entry point of the program."""
    run(command, "cvmfs-graphdriver")
