"""A client of one repository: verifies which revision is the newest, and gives it out as a ``Revision``.

Owns: the order of verification (CernVM-FS format reference, section 2.3) over network and cache. Must not
know: FUSE.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from cvmfs_graphdriver.client.cache import Cache
from cvmfs_graphdriver.client.catalogs import Catalogs
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.client.fetcher import Fetcher
from cvmfs_graphdriver.client.inodes import InodeTable
from cvmfs_graphdriver.client.revision import Revision
from cvmfs_graphdriver.client.settings import RepositorySettings
from cvmfs_graphdriver.client.transfer import Transfer
from cvmfs_graphdriver.repository.entry import CatalogReference
from cvmfs_graphdriver.repository.keys import load_public_keys
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust import TrustChain

__all__ = ["Client"]

_SMALL = 1024 * 1024
"""Upper limit for manifest, whitelist and certificate, in bytes."""


class Client:
    """One repository as seen from this node; safe for any number of threads."""

    def __init__(
        self,
        settings: RepositorySettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self._now = now
        self._cache = Cache(settings.cache.directory)
        self._transfer = Transfer(settings.network)
        self._fetcher = Fetcher(self._transfer, self._cache)
        inodes = InodeTable(settings.cache.workspace / f"inodes.{settings.fqrn}")
        self._catalogs = Catalogs(self._fetcher, self._cache, inodes)
        self._current: Revision | None = None

    def mount(self) -> Revision:
        """The newest revision, verified. Raises ClientError, RepositoryError."""
        manifest = self._verified_manifest()
        root = CatalogReference(b"", manifest.root, manifest.root_size)
        self._current = Revision(
            manifest, root, self._catalogs, self._fetcher, self.settings.presentation.variables
        )
        return self._current

    def refresh(self) -> Revision | None:
        """The newest revision if it is newer than the one mounted, else None."""
        current = self._current
        if current is None:
            return self.mount()
        newest = self.mount()
        return newest if newest.root != current.root else None

    def close(self) -> None:
        """Close connections and catalogs."""
        self._catalogs.close()
        self._transfer.close()

    def _verified_manifest(self) -> Manifest:
        chain = TrustChain(self.settings.fqrn, self._public_keys())
        manifest = chain.manifest(self._transfer.get(".cvmfspublished", _SMALL))
        name = f"data/{manifest.certificate.hex[:2]}/{manifest.certificate.text[2:]}X"
        chain.certificate(self._transfer.get(name, _SMALL))
        chain.whitelist(self._transfer.get(".cvmfswhitelist", _SMALL), self._now())
        return chain.verified

    def _public_keys(self) -> list[object]:
        keys = []
        for path in self.settings.trust.public_keys:
            try:
                keys.extend(load_public_keys(path.read_bytes()))
            except OSError as error:
                raise ConfigurationError(f"cannot read the public key {path}: {error.strerror}") from error
        return keys
