"""A repository that can be published to: its storage, its keys, its newest revision.

Owns: opening it (the newest manifest must be signed by its key) and signing whitelist and manifest. Must not
know: what a transaction changes. Follows the CernVM-FS format reference, sections 2 and 13.3.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cvmfs_graphdriver.publisher.contents import read_object
from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.keyring import Keyring
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import FormatError, TrustError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter, encode_letter
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist

if TYPE_CHECKING:
    from cvmfs_graphdriver.publisher.stock_server import StockServer

__all__ = ["MANIFEST", "REFLOG", "WHITELIST", "Repository"]

MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"
REFLOG = ".cvmfsreflog"
_SMALL = 1 << 20


class Repository:
    """An existing repository, open for publishing."""

    def __init__(
        self,
        storage: Storage,
        keys: Keyring,
        options: RepositoryOptions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.storage = storage
        self.keys = keys
        self.options = options
        self.clock = clock
        self.stock: StockServer | None = None
        """What ``cvmfs_server`` keeps beside it, if that publishes to it, too."""

    @classmethod
    def open(
        cls, fqrn: str, storage: Storage, keys_directory: Path, options: RepositoryOptions | None = None
    ) -> Self:
        """Open the repository in ``storage`` with the keys in ``keys_directory``.

        Hash algorithm, lifetime and garbage collection are taken from its manifest, whatever ``options`` say.
        Raises PublisherError: there is no repository, or another one; TrustError: its manifest is not signed
        by this key.
        """
        repository = cls(storage, Keyring.load(fqrn, keys_directory), options or RepositoryOptions())
        manifest = repository.manifest()
        repository.options = replace(
            repository.options,
            algorithm=manifest.root.algorithm,
            garbage_collectable=manifest.garbage_collectable,
            ttl=manifest.ttl,
        )
        return repository

    @property
    def fqrn(self) -> str:
        return self.keys.fqrn

    def manifest(self) -> Manifest:
        """The newest revision's manifest, signature verified. Raises PublisherError, TrustError."""
        data = self.storage.get(MANIFEST, limit=_SMALL)
        if data is None:
            raise PublisherError(
                f"there is no repository in {self.storage.location}: create {self.fqrn} first "
                "(cvmfs-graphdriver repo create)"
            )
        letter = Letter.parse(data)
        manifest = Manifest.parse(letter.body)
        if manifest.fqrn != self.fqrn:
            raise PublisherError(
                f"the repository in {self.storage.location} is {manifest.fqrn}, not {self.fqrn}"
            )
        if not letter.digest_matches() or not self.keys.certificate.verifies_manifest(
            letter.signed_text, letter.signature
        ):
            raise TrustError(
                f"the manifest in {self.storage.location} is not signed by the given key of {self.fqrn}"
            )
        return manifest

    @contextmanager
    def lock(self, *, wait: float) -> Iterator[None]:
        """Keep other publishers out, ``cvmfs_server`` too; waits up to ``wait`` seconds for each kind.

        Raises BusyError, StorageError.
        """
        with self.storage.lock(wait=wait), self.stock.lock(wait=wait) if self.stock else nullcontext():
            yield

    def put_reflog(self, data: bytes) -> Digest:
        """Store the reflog; returns the digest of its bytes."""
        digest = Digest.of(data, self.options.algorithm)
        self.storage.put(REFLOG, data)
        if self.stock is not None:
            self.stock.note_reflog(digest)
        return digest

    def unpack(self, name: ObjectName, directory: Path) -> Path:
        """One of the repository's own objects as a private file in ``directory``.

        Raises MissingObjectError, DigestMismatchError, FormatError.
        """
        with tempfile.NamedTemporaryFile(dir=directory, prefix=f"{name.suffix}-", delete=False) as file:
            file.write(read_object(self.storage, name))
        return Path(file.name)

    def fetch_catalog(self, digest: Digest, file: Path) -> None:
        """Write one of the repository's own catalogs to ``file``. Raises as ``unpack`` does."""
        file.write_bytes(read_object(self.storage, ObjectName(digest, Suffix.CATALOG)))

    def put_manifest(self, manifest: Manifest) -> None:
        """Sign a manifest and store it as the newest: at this moment a revision becomes visible."""
        data = encode_letter(manifest.export(), self.options.algorithm, self.keys.key.sign_manifest)
        self.storage.put(MANIFEST, data)

    def whitelist(self) -> Whitelist:
        """The whitelist; its signature is for clients to verify.

        Raises PublisherError: there is none; FormatError.
        """
        data = self.storage.get(WHITELIST, limit=_SMALL)
        if data is None:
            raise PublisherError(f"{self.fqrn} has no whitelist: sign one (cvmfs-graphdriver repo resign)")
        return Whitelist.parse(Letter.parse(data).body)

    def whitelist_problem(self) -> str:
        """What to tell its owner if clients refuse the whitelist, or will soon; else empty."""
        try:
            problem = self.whitelist().problem(datetime.fromtimestamp(self.clock(), UTC))
        except (PublisherError, FormatError) as error:
            return str(error)
        return f"{problem} (cvmfs-graphdriver repo resign {self.fqrn})" if problem else ""

    def resign(self) -> Whitelist:
        """Sign the whitelist for another ``whitelist_days``. Raises PublisherError: no master key."""
        master = self.keys.master
        if master is None:
            raise PublisherError(
                f"the master key of {self.fqrn} is missing, and whitelists can be signed only with it"
            )
        now = datetime.fromtimestamp(int(self.clock()), UTC)
        fingerprint = self.keys.certificate.fingerprint(self.options.algorithm)
        whitelist = Whitelist(
            self.fqrn, now, now + timedelta(days=self.options.whitelist_days), (fingerprint,)
        )
        data = encode_letter(whitelist.export(), self.options.algorithm, master.sign_whitelist)
        self.storage.put(WHITELIST, data)
        return whitelist

    def certificate_object(self) -> tuple[bytes, Suffix]:
        """The certificate as an object to be stored."""
        return self.keys.certificate.pem, Suffix.CERTIFICATE
