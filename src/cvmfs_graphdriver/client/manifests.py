"""The newest revision on the servers, with its signature verified.

Owns: fetching the small objects of the trust chain in order (CernVM-FS format reference, section 2.3), and
trying another server when one of them fails verification. Must not know: which revision the client mounts.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.errors import ConfigurationError, NotFoundError
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.client.whitelist_watch import WhitelistWatch
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from cvmfs_graphdriver.repository.errors import RepositoryError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.blacklist import Blacklist
from cvmfs_graphdriver.repository.trust.chain import TrustChain
from cvmfs_graphdriver.repository.trust.keys import PublicKey, load_public_keys

__all__ = ["Manifests"]

Result = TypeVar("Result")

_LIMIT = 1024 * 1024
"""The maximum size of manifest, whitelist and certificate, in bytes."""


class Manifests:
    """The newest verified manifest of one repository."""

    def __init__(self, settings: RepositorySettings, transfer: Transfer, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._transfer = transfer
        self._now = now
        self._certificates: dict[Digest, bytes] = {}
        self.whitelist = WhitelistWatch(now)
        self.public_keys = tuple(_public_keys(settings))

    def newest(self, *, newest_timestamp: int = 0) -> Manifest:
        """The newest manifest; one published before ``newest_timestamp`` (Unix time) is refused.

        Raises TransferError, RepositoryError, ConfigurationError.
        """
        return self._twice(lambda: self._prove(*self._begin(newest_timestamp)))

    def newer_than(
        self, root: Digest, *, newest_timestamp: int, past_caches: bool = False
    ) -> Manifest | None:
        """The newest manifest; None if its root catalog is ``root``, which needs no further verification.

        With ``past_caches``, no HTTP cache may answer. Raises what ``newest`` raises.
        """

        def find() -> Manifest | None:
            chain, unproven = self._begin(newest_timestamp, past_caches=past_caches)
            if unproven.root != root:
                return self._prove(chain, unproven, past_caches=past_caches)
            self._watch_whitelist(chain, unproven)
            return None

        return self._twice(find)

    def blacklist(self) -> Blacklist:
        """The current content of all configured blacklists together. Raises ConfigurationError."""
        found = Blacklist()
        for path in self._settings.trust.blacklists:
            try:
                found |= Blacklist.parse(path.read_bytes())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ConfigurationError(f"cannot read the blacklist {path}: {error.strerror}") from error
        return found

    def _twice(self, find: Callable[[], Result]) -> Result:
        """If verification fails, try once more with another server."""
        failover = self._transfer.failover
        host = failover.hosts[failover.current_host]
        try:
            return find()
        except RepositoryError:
            if len(failover.hosts) == 1:
                raise
            self._transfer.leave(host)
            return find()

    def _begin(self, newest_timestamp: int, *, past_caches: bool = False) -> tuple[TrustChain, Manifest]:
        chain = TrustChain(self._settings.fqrn, self.public_keys, blacklist=self.blacklist())
        data = self._get(".cvmfspublished", past_caches=past_caches)
        return chain, chain.manifest(data, newest_timestamp=newest_timestamp)

    def _prove(self, chain: TrustChain, unproven: Manifest, *, past_caches: bool = False) -> Manifest:
        alternative = self.alternative(unproven)
        chain.certificate(self._certificate(chain.certificate_name, alternative=alternative))
        data = self._get(".cvmfswhitelist", past_caches=past_caches)
        try:
            chain.whitelist(data, self._now())
        finally:
            if chain.signed_whitelist is not None:
                self.whitelist.see(chain.signed_whitelist)
        return chain.verified

    def _watch_whitelist(self, chain: TrustChain, unproven: Manifest) -> None:
        """Whether the whitelist has been signed again; what is mounted stays, even if it has not."""
        if self.whitelist.is_due:
            with suppress(CvmfsGraphdriverError):
                self._prove(chain, unproven)
        self.whitelist.tell()

    def alternative(self, manifest: Manifest) -> bool:
        """Whether certificate, root catalog and history are at the bootstrap paths (section 1.3)."""
        return self._settings.revision.alternative_paths or manifest.alternative_paths

    def _certificate(self, name: ObjectName, *, alternative: bool) -> bytes:
        known = self._certificates.get(name.digest)
        if known is None:
            known = self._transfer.get(name.alternative_path if alternative else name.path, _LIMIT)
            # Keep only what matches its digest; the chain refuses anything else.
            if Digest.of(known, name.digest.algorithm) == name.digest:
                self._certificates = {name.digest: known}
        return known

    def _get(self, path: str, *, past_caches: bool) -> bytes:
        try:
            return self._transfer.get(path, _LIMIT, past_caches=past_caches)
        except NotFoundError as error:
            raise NotFoundError(
                f"no server has the repository {self._settings.fqrn}: {error}; check the repository name and "
                f"CVMFS_SERVER_URL"
            ) from error


def _public_keys(settings: RepositorySettings) -> list[PublicKey]:
    keys = []
    for path in settings.trust.public_keys:
        keys += _read_keys(settings.fqrn, path)
    return keys


def _read_keys(fqrn: str, path: Path) -> list[PublicKey]:
    try:
        return load_public_keys(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"{fqrn}: cannot read the public key {path}: {error.strerror}; check CVMFS_PUBLIC_KEY and "
            f"CVMFS_KEYS_DIR"
        ) from error
    except RepositoryError as error:
        raise ConfigurationError(f"{fqrn}: {path} has no valid public key: {error}") from error
