"""Keys and certificates of a repository, and its two rules of signing (format reference, sections 2.3-2.5).

Owns: RSA as this format uses it. The whitelist is signed by the master key over the digest's text as it
is: PKCS#1 v1.5 padding, no DigestInfo. The manifest is signed by the repository key with a SHA-1
DigestInfo. Of a certificate only the fingerprint and the public key matter; dates, issuer and name do not.
Must not know: where keys are kept.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.x509.oid import NameOID

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Certificate", "Fingerprint", "PublicKey", "SigningKey", "fingerprint_digest", "load_public_keys"]

_KEY_BITS = 2048
_NAME_LIMIT = 30
_BEGIN = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A certificate's fingerprint as whitelists and blacklists write it."""

    digest: Digest

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read ``AA:BB:…[-ALGORITHM]``; whatever follows a space or ``#`` is comment."""
        text = line.split("#", 1)[0].split(None, 1)[0] if line.split("#", 1)[0].strip() else ""
        return cls(Digest.parse(text.replace(":", "").lower()))

    @property
    def text(self) -> str:
        pairs = self.digest.raw.hex(":").upper()
        return pairs + self.digest.algorithm.identifier.upper()


def fingerprint_digest(der: bytes, algorithm: Algorithm) -> Fingerprint:
    """The fingerprint of a certificate's DER form."""
    return Fingerprint(Digest.of(der, algorithm))


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A master key's public half."""

    key: rsa.RSAPublicKey

    def verifies_whitelist(self, signed_text: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over exactly that text, without DigestInfo."""
        try:
            return self.key.recover_data_from_signature(signature, padding.PKCS1v15(), None) == signed_text
        except InvalidSignature:
            return False

    @property
    def pem(self) -> bytes:
        """PEM, SubjectPublicKeyInfo."""
        return self.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def load_public_keys(pem: bytes) -> list[PublicKey]:
    """All RSA public keys of a PEM file. Raises FormatError: none, or something else."""
    keys = []
    blocks = [_BEGIN + block for block in pem.split(_BEGIN)[1:]]
    for block in blocks:
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FormatError("a public key file holds something that is no PEM public key") from error
        if not isinstance(key, rsa.RSAPublicKey):
            raise FormatError("a public key file holds a key that is not RSA")
        keys.append(PublicKey(key))
    if not keys:
        raise FormatError("a public key file holds no PEM public key")
    return keys


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of a repository key. ``pem`` is what is published (as a zlib object, suffix X)."""

    pem: bytes
    certificate: x509.Certificate

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Raises FormatError: no X.509 certificate with an RSA key."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise FormatError("it is no PEM certificate") from error
        if not isinstance(key, rsa.RSAPublicKey):
            raise FormatError("its key is not RSA")
        return cls(pem, certificate)

    def fingerprint(self, algorithm: Algorithm = Algorithm.SHA1) -> Fingerprint:
        return fingerprint_digest(self.certificate.public_bytes(serialization.Encoding.DER), algorithm)

    def verifies_manifest(self, signed_text: bytes, signature: bytes) -> bool:
        """Whether the signature is that of the certificate's key, with a SHA-1 DigestInfo."""
        key = self.certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        try:
            key.verify(signature, signed_text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key: a repository's master key or its repository key."""

    key: rsa.RSAPrivateKey

    @classmethod
    def generate(cls) -> Self:
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS))

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Raises FormatError: no unencrypted RSA private key in PEM."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FormatError("it is no unencrypted PEM private key") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise FormatError("the private key is not RSA")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """PEM in the form that stock tools write (PKCS#8, not encrypted)."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key.public_key())

    def sign_whitelist(self, signed_text: bytes) -> bytes:
        """As a master key: the text itself, padded."""
        return self.key.sign(signed_text, padding.PKCS1v15(), NoDigestInfo())

    def sign_manifest(self, signed_text: bytes) -> bytes:
        """As a repository key: with a SHA-1 DigestInfo."""
        return self.key.sign(signed_text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303

    def certify(self, fqrn: str, now: datetime | None = None) -> Certificate:
        """A self-signed certificate as the stock server makes one: 365 days, which nobody checks."""
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
        return Certificate(certificate.public_bytes(serialization.Encoding.PEM), certificate)
