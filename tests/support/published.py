"""Repositories that the tests publish themselves."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.server import Served, serve
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.entries import Item

__all__ = ["Published", "published"]

FQRN = "planes.example.org"


@dataclass
class Published:
    """A repository, its server, and a configuration for clients."""

    repository: Repository
    served: Served
    etc: Path
    fqrn: str = FQRN

    def publish(self, trees: Mapping[bytes, Sequence[Item]], *, remove: Sequence[bytes] = ()) -> None:
        """One transaction: the tree below each path is new."""
        with Transaction(self.repository) as transaction:
            for path in remove:
                transaction.remove(path)
            for path, items in trees.items():
                transaction.ingest(path, items)
            transaction.publish()

    def settings(self, **overrides: str) -> RepositorySettings:
        return load_settings(self.fqrn, self.etc, overrides)


@contextmanager
def published(home: Path, *, ttl: int = 240) -> Iterator[Published]:
    """An empty repository below ``home``."""
    storage = LocalStorage.create(home / "www" / "cvmfs" / FQRN)
    repository = create_repository(FQRN, storage, home / "keys", RepositoryOptions(ttl=ttl))
    etc = home / "etc"
    etc.mkdir()
    with serve(home / "www") as served:
        values = {
            "CVMFS_SERVER_URL": f"{served.url}/cvmfs/@fqrn@",
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_KEYS_DIR": str(home / "keys"),
            "CVMFS_CACHE_BASE": str(home / "cache"),
            "CVMFS_CLAIM_OWNERSHIP": "no",
            "CVMFS_CHECK_PERMISSIONS": "yes",
        }
        (etc / "default.local").write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
        yield Published(repository, served, etc)
