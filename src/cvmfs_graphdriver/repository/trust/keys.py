"""Keys and certificates of a repository, and its two rules of signing (format reference, sections 2.3-2.5).

Owns: RSA as this format uses it. The whitelist is signed by the master key over the digest's text
itself: PKCS#1 v1.5 padding, no DigestInfo. The manifest is signed by the repository key with a SHA-1
DigestInfo. Of a certificate only the fingerprint and the public key matter; dates, issuer and name do not.
Must not know: where keys are kept; private keys (``signing``).
"""

from typing import NamedTuple, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.der import (
    RsaNumbers,
    bare_numbers,
    certified_numbers,
    decode_pem,
    key_numbers,
)

__all__ = ["Certificate", "Fingerprint", "PublicKey", "fingerprint_digest", "load_public_keys"]

_BEGIN = b"-----BEGIN "


class Fingerprint(NamedTuple):
    """A certificate's fingerprint as whitelists and blacklists write it."""

    digest: Digest

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read ``AA:BB:…[-ALGORITHM]``; whatever follows a space or ``#`` is a comment."""
        text = line.split("#", 1)[0].split(None, 1)[0] if line.split("#", 1)[0].strip() else ""
        return cls(Digest.parse(text.replace(":", "").lower()))

    @property
    def text(self) -> str:
        pairs = self.digest.raw.hex(":").upper()
        return pairs + self.digest.algorithm.identifier.upper()


def fingerprint_digest(der: bytes, algorithm: Algorithm) -> Fingerprint:
    """The fingerprint of a certificate's DER form."""
    return Fingerprint(Digest.of(der, algorithm))


class PublicKey(NamedTuple):
    """A master key's public half."""

    key: rsa.RSAPublicKey

    def verifies_whitelist(self, signed_text: bytes, signature: bytes) -> bool:
        """Whether this key made the signature over exactly this text, without DigestInfo."""
        try:
            return self.key.recover_data_from_signature(signature, padding.PKCS1v15(), None) == signed_text
        except InvalidSignature:
            return False

    @property
    def pem(self) -> bytes:
        """PEM, SubjectPublicKeyInfo."""
        from cryptography.hazmat.primitives import serialization  # mounting writes no keys

        return self.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def load_public_keys(pem: bytes) -> list[PublicKey]:
    """All RSA public keys of a PEM file. Raises FormatError: none, or something else."""
    keys = []
    for block in pem.split(_BEGIN)[1:]:
        try:
            keys.append(PublicKey(_rsa_key(_public_numbers(_BEGIN + block))))
        except FormatError as error:
            raise FormatError(
                f"a public key file contains something other than an RSA public key: {error}"
            ) from error
    if not keys:
        raise FormatError("a public key file contains no PEM public key")
    return keys


class Certificate(NamedTuple):
    """The certificate of a repository key. ``pem`` is what is published (as a zlib object, suffix X)."""

    pem: bytes
    der: bytes
    key: rsa.RSAPublicKey

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Raises FormatError: it is not an X.509 certificate with an RSA key."""
        try:
            der = decode_pem(pem, b"CERTIFICATE")
            return cls(pem, der, _rsa_key(certified_numbers(der)))
        except FormatError as error:
            raise FormatError(f"it is not a PEM certificate: {error}") from error

    def fingerprint(self, algorithm: Algorithm = Algorithm.SHA1) -> Fingerprint:
        return fingerprint_digest(self.der, algorithm)

    def verifies_manifest(self, signed_text: bytes, signature: bytes) -> bool:
        """Whether the certificate's key made the signature, with a SHA-1 DigestInfo."""
        try:
            self.key.verify(signature, signed_text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        except InvalidSignature:
            return False
        return True


def _public_numbers(pem: bytes) -> RsaNumbers:
    if pem.startswith(_BEGIN + b"RSA "):
        return bare_numbers(decode_pem(pem, b"RSA PUBLIC KEY"))
    return key_numbers(decode_pem(pem, b"PUBLIC KEY"))


def _rsa_key(numbers: RsaNumbers) -> rsa.RSAPublicKey:
    """The key, ready to verify. Raises FormatError: the numbers are not a key."""
    try:
        return rsa.RSAPublicNumbers(numbers.exponent, numbers.modulus).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("its numbers are not an RSA key") from error
