"""The trust chain of a repository, in its only legal order (CernVM-FS format reference, section 2.3).

Owns: the order of proofs. Must not know: network, files, caches; bytes come in, and a proven manifest comes
out.

The order:

1. ``manifest``: parse, compare name and age. The result is *unproven*: its only uses are to find
   out which certificate to fetch, and that nothing has changed since an already proven revision.
2. ``certificate``: its bytes must have the digest that the manifest names, and its key must verify the
   manifest's signature.
3. ``whitelist``: a master key must have signed it, it must be this repository's, not expired, and hold the
   certificate's fingerprint, which no blacklist may hold.

Only then does ``verified`` return the manifest. Everything below it, from the root catalog to the last chunk,
is named by digests that start in the manifest, so nothing else needs a signature.
"""

from collections.abc import Sequence
from datetime import datetime

from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError, TrustError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.blacklist import Blacklist
from cvmfs_graphdriver.repository.trust.keys import Certificate, PublicKey
from cvmfs_graphdriver.repository.trust.letter import Letter
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist

__all__ = ["TrustChain"]

_CERTIFICATE_LIMIT = 1 << 20


class TrustChain:
    """One verification of one repository; each error names the object and the reason."""

    def __init__(
        self, fqrn: str, public_keys: Sequence[PublicKey], *, blacklist: Blacklist | None = None
    ) -> None:
        self._fqrn = fqrn
        self._keys = tuple(public_keys)
        self._blacklist = blacklist or Blacklist()
        self._letter: Letter | None = None
        self._manifest: Manifest | None = None
        self._certificate: Certificate | None = None
        self._proven = False
        self.signed_whitelist: Whitelist | None = None
        """The whitelist as soon as its signature and name are right; it may have expired."""

    def manifest(self, data: bytes, *, newest_timestamp: int = 0) -> Manifest:
        """Step 1; ``newest_timestamp`` is the publish time of the newest manifest ever seen.

        Raises FormatError, TrustError.
        """
        try:
            letter = Letter.parse(data)
            manifest = Manifest.parse(letter.body)
        except FormatError as error:
            raise FormatError(f"the manifest of {self._fqrn} cannot be read: {error}") from error
        if not letter.digest_matches():
            raise TrustError(f"the manifest of {self._fqrn} was changed: its digest is not that of its text")
        if manifest.fqrn and manifest.fqrn != self._fqrn:
            raise TrustError(
                f"the manifest of {self._fqrn} belongs to another repository, {manifest.fqrn!r}; "
                "check CVMFS_SERVER_URL"
            )
        if manifest.timestamp < newest_timestamp:
            raise TrustError(
                f"the manifest of {self._fqrn} is older than one seen before ({manifest.timestamp}, "
                f"after {newest_timestamp}): the server is stale, or somebody is replaying an old revision"
            )
        if self._blacklist.refuses_revision(self._fqrn, manifest.revision):
            raise TrustError(f"revision {manifest.revision} of {self._fqrn} is blacklisted")
        self._letter, self._manifest = letter, manifest
        self._certificate, self._proven = None, False
        return manifest

    @property
    def certificate_name(self) -> ObjectName:
        """The object that ``certificate`` expects. Raises TrustError: the manifest names none."""
        manifest = self._expect_manifest()
        if manifest.certificate is None:
            raise TrustError(f"the manifest of {self._fqrn} names no certificate, so it cannot be verified")
        return ObjectName(manifest.certificate, Suffix.CERTIFICATE)

    def certificate(self, data: bytes) -> None:
        """Step 2; ``data`` as stored, that is, compressed.

        Raises DigestMismatchError, FormatError, TrustError.
        """
        name = self.certificate_name
        letter = self._letter
        if Digest.of(data, name.digest.algorithm) != name.digest:
            raise DigestMismatchError(f"the certificate {name} of {self._fqrn} does not have its digest")
        try:
            certificate = Certificate.parse(decompress(data, limit=_CERTIFICATE_LIMIT))
        except FormatError as error:
            raise FormatError(f"the certificate {name} of {self._fqrn} cannot be read: {error}") from error
        if letter is None or not certificate.verifies_manifest(letter.signed_text, letter.signature):
            raise TrustError(
                f"the manifest of {self._fqrn} has a wrong signature: certificate {name} did not make it"
            )
        self._certificate = certificate

    def whitelist(self, data: bytes, now: datetime) -> None:
        """Step 3, at the time ``now``. Raises FormatError, TrustError."""
        certificate = self._certificate
        if certificate is None:
            raise TrustError(f"the whitelist of {self._fqrn} was given before the certificate was proven")
        try:
            letter = Letter.parse(data)
            whitelist = Whitelist.parse(letter.body)
        except FormatError as error:
            raise FormatError(f"the whitelist of {self._fqrn} cannot be read: {error}") from error
        if not letter.digest_matches():
            raise TrustError(f"the whitelist of {self._fqrn} was changed: its digest is not that of its text")
        if not any(key.verifies_whitelist(letter.signed_text, letter.signature) for key in self._keys):
            raise TrustError(
                f"the whitelist of {self._fqrn} is signed by none of the {len(self._keys)} public keys "
                "configured: check CVMFS_PUBLIC_KEY and CVMFS_KEYS_DIR"
            )
        if whitelist.fqrn != self._fqrn:
            raise TrustError(
                f"the whitelist of {self._fqrn} belongs to another repository, {whitelist.fqrn!r}"
            )
        self.signed_whitelist = whitelist
        if whitelist.expired(now):
            raise TrustError(f"{whitelist.problem(now)} (or this machine's clock is wrong)")
        listed = {*whitelist.fingerprints, *self._blacklist.fingerprints}
        marks = {certificate.fingerprint(other.digest.algorithm) for other in listed}
        if marks.isdisjoint(whitelist.fingerprints):
            raise TrustError(
                f"the certificate {self.certificate_name} of {self._fqrn} is not on the whitelist: "
                f"its fingerprint is {certificate.fingerprint().text}"
            )
        if not marks.isdisjoint(self._blacklist.fingerprints):
            raise TrustError(
                f"the certificate {self.certificate_name} of {self._fqrn} is blacklisted: "
                f"its fingerprint is {certificate.fingerprint().text}"
            )
        self._proven = True

    @property
    def verified(self) -> Manifest:
        """The manifest, proven. Raises TrustError: a step is missing."""
        manifest = self._expect_manifest()
        if not self._proven:
            raise TrustError(f"the manifest of {self._fqrn} is not proven yet")
        return manifest

    def _expect_manifest(self) -> Manifest:
        if self._manifest is None:
            raise TrustError(f"the manifest of {self._fqrn} must be read first")
        return self._manifest
