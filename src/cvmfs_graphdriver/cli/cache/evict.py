"""``cvmfs-graphdriver cache evict``: take files out of a cache."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_talk
from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["command"]


@click.command("evict")
@click.argument("repository")
@click.argument("paths", nargs=-1, required=True)
@etc_option
def command(repository: str, paths: tuple[str, ...], etc: Path) -> None:
    """Take the files at PATHS inside REPOSITORY out of the cache, also if they are pinned.

    They are fetched again when somebody reads them; who has them open now goes on reading.
    """
    with open_talk(repository, etc) as talk:
        for path in paths:
            answer = talk.answer(f"evict {path}").strip()
            if answer != "OK":
                raise CacheError(f"{path} cannot be evicted: {answer}")
