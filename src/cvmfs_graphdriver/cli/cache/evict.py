"""``cvmfs-graphdriver cache evict``: remove files from a cache."""

import os
from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_client
from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["command"]


@click.command("evict")
@click.argument("repository")
@click.argument("paths", nargs=-1, required=True)
@etc_option
def command(repository: str, paths: tuple[str, ...], etc: Path) -> None:
    """Remove the files at PATHS in REPOSITORY from the cache, even if they are pinned.

    They are fetched again when they are next opened; processes that have them open can continue to read.
    """
    with open_client(repository, etc) as client:
        for path in paths:
            file = client.regular_file(os.fsencode(path.rstrip("/")))
            if file is None:
                raise CacheError(f"{path} cannot be evicted: there is no such regular file in {repository}")
            if not client.evict(file):
                raise CacheError(f"{path} cannot be evicted: a process is using it")
