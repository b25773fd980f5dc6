"""Private keys of a repository, and what they make: signatures and certificates.

Owns: making and reading keys, and the signing half of the two rules in ``keys``. Must not know: where keys
are kept. Separate from ``keys``, so that verifying does not wait for what this module imports.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.x509.oid import NameOID

from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.keys import Certificate, PublicKey

__all__ = ["SigningKey"]

_KEY_BITS = 2048
_NAME_LIMIT = 30


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key: a repository's master key or its repository key."""

    key: rsa.RSAPrivateKey

    @classmethod
    def generate(cls) -> Self:
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS))

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Raises FormatError: it is not an unencrypted RSA private key in PEM."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FormatError("it is not an unencrypted PEM private key") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise FormatError("the private key is not RSA")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """PEM as stock tools write it (PKCS#8, not encrypted)."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key.public_key())

    def sign_whitelist(self, signed_text: bytes) -> bytes:
        """Sign as a master key: the text itself, padded."""
        return self.key.sign(signed_text, padding.PKCS1v15(), NoDigestInfo())

    def sign_manifest(self, signed_text: bytes) -> bytes:
        """Sign as a repository key: with a SHA-1 DigestInfo."""
        return self.key.sign(signed_text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303

    def certify(self, fqrn: str, now: datetime | None = None) -> Certificate:
        """A self-signed certificate as the stock server makes it: valid for 365 days, unchecked."""
        short = fqrn if len(fqrn) <= _NAME_LIMIT else fqrn[:_NAME_LIMIT] + "[...]"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{short} CernVM-FS Release Managers")])
        start = now or datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=365))
            .sign(self.key, hashes.SHA256())
        )
        return Certificate.parse(certificate.public_bytes(serialization.Encoding.PEM))
