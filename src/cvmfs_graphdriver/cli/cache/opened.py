"""Opening a repository's cache, or a client, for the duration of one command.

Must not know: any command.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.cache.eviction import Eviction
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["open_cache", "open_client", "open_eviction"]


@contextmanager
def open_cache(repository: str, etc: Path) -> Iterator[Cache]:
    """The cache that is configured for a repository."""
    settings = load_settings(repository, etc).cache
    if not settings.directory.is_dir():
        raise CacheError(f"{repository} has no cache yet: {settings.directory} does not exist")
    with closing(Cache(settings.directory, settings.quota, alien=settings.alien)) as cache:
        yield cache


@contextmanager
def open_eviction(repository: str, etc: Path) -> Iterator[Eviction]:
    """What manages that cache."""
    with open_cache(repository, etc) as cache:
        if cache.eviction is None:
            raise CacheError(f"the cache {cache.directory} has no limit, and is therefore not managed")
        yield cache.eviction


@contextmanager
def open_client(repository: str, etc: Path) -> Iterator[Client]:
    """A client of the repository, with its newest revision."""
    with closing(Client(load_settings(repository, etc))) as client:
        client.mount()
        yield client
