"""``cvmfs-graphdriver cache``: the table of commands for a cache."""

import click

from cvmfs_graphdriver.cli.entry import LazyGroup

__all__ = ["command"]

_HERE = "cvmfs_graphdriver.cli.cache"


@click.group(
    "cache",
    cls=LazyGroup,
    commands_at={
        "evict": f"{_HERE}.evict:command",
        "fsck": f"{_HERE}.fsck:command",
        "list": f"{_HERE}.list:command",
        "pin": f"{_HERE}.pin:command",
        "wipe": f"{_HERE}.wipe:command",
    },
)
def command() -> None:
    """Inspect and change the cache of a repository, which may be mounted."""
