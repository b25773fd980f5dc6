"""A fixture's repository signed with keys of our own: tests can publish in its name what they like."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter, encode_letter
from cvmfs_graphdriver.repository.trust.signing import SigningKey
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist
from tests.support.fixtures import UnpackedRepository, unpack

__all__ = ["ResignedRepository", "signing_key"]


@cache
def signing_key(name: str) -> SigningKey:
    """A key that is the same for all tests of one run."""
    del name
    return SigningKey.generate()


class ResignedRepository:
    """``published`` is the manifest as it is served; ``publish`` changes it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.unpacked: UnpackedRepository = unpack(name, directory)
        self.root = self.unpacked.root
        self.fqrn = self.unpacked.fqrn
        self.directory = directory
        self.master = signing_key("master")
        self.key = signing_key("repository")
        self.certificate = self.key.certify(self.fqrn)
        public = directory / "own.pub"
        public.write_bytes(self.master.public.pem)
        self.unpacked.keys = [public]
        self.published = Manifest.parse(Letter.parse((self.root / ".cvmfspublished").read_bytes()).body)
        self.whitelist()
        self.publish()

    def whitelist(self, *, days: float = 30, fqrn: str = "", master: SigningKey | None = None) -> None:
        """Serve a whitelist that expires in so many days."""
        now = datetime.now(UTC)
        body = Whitelist(
            fqrn or self.fqrn, now, now + timedelta(days=days), (self.certificate.fingerprint(),)
        ).export()
        data = encode_letter(body, Algorithm.SHA1, (master or self.master).sign_whitelist)
        (self.root / ".cvmfswhitelist").write_bytes(data)

    def publish(
        self, root: str = "", revision: int = 0, *, seconds: int = 0, key: SigningKey | None = None
    ) -> None:
        """Serve a manifest for another root catalog, published so many seconds later."""
        certificate = (key.certify(self.fqrn) if key else self.certificate).pem
        stored = compress(certificate)
        name = ObjectName(Digest.of(stored), Suffix.CERTIFICATE)
        (self.root / name.path).parent.mkdir(exist_ok=True)
        (self.root / name.path).write_bytes(stored)
        self.published = self.published._replace(
            root=Digest.parse(root) if root else self.published.root,
            root_size=0 if root else self.published.root_size,
            revision=revision or self.published.revision,
            timestamp=self.published.timestamp + seconds,
            certificate=name.digest,
        )
        data = encode_letter(self.published.export(), Algorithm.SHA1, (key or self.key).sign_manifest)
        (self.root / ".cvmfspublished").write_bytes(data)
