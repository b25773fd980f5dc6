"""``cvmfs-graphdriver cache pin``: keep files in a cache for ever."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_talk
from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["command"]


@click.command("pin")
@click.argument("repository")
@click.argument("paths", nargs=-1, required=True)
@etc_option
def command(repository: str, paths: tuple[str, ...], etc: Path) -> None:
    """Fetch the files at PATHS inside REPOSITORY, and never let them go until they are evicted by name."""
    with open_talk(repository, etc) as talk:
        for path in paths:
            answer = talk.answer(f"pin {path}").strip()
            if answer != "OK":
                raise CacheError(f"{path} cannot be pinned: {answer}")
