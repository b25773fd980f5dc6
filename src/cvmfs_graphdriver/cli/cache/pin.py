"""``cvmfs-graphdriver cache pin``: keep files in a cache."""

import os
from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_client
from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["command"]


@click.command("pin")
@click.argument("repository")
@click.argument("paths", nargs=-1, required=True)
@etc_option
def command(repository: str, paths: tuple[str, ...], etc: Path) -> None:
    """Fetch the files at PATHS in REPOSITORY, and keep them in the cache until they are evicted by name."""
    with open_client(repository, etc) as client:
        for path in paths:
            file = client.regular_file(os.fsencode(path.rstrip("/")))
            if file is None:
                raise CacheError(f"{path} cannot be pinned: there is no such regular file in {repository}")
            if not client.pin(file):
                raise CacheError(f"{path} cannot be pinned: there is no space")
