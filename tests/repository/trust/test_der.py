"""Keys found in PEM and DER, against cryptography's own parsers and OpenSSL."""

import base64
import subprocess
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.der import (
    RsaNumbers,
    bare_numbers,
    certified_numbers,
    decode_pem,
    key_numbers,
)
from cvmfs_graphdriver.repository.trust.signing import SigningKey
from tests.support.mutations import INPUTS, mutations

DER = serialization.Encoding.DER


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


def openssl(*arguments: str | Path, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True).stdout


def numbers_of(key: object) -> RsaNumbers | None:
    if not isinstance(key, rsa.RSAPublicKey):
        return None
    return RsaNumbers(key.public_numbers().e, key.public_numbers().n)


def test_it_finds_the_key_that_the_library_finds(key: SigningKey) -> None:
    public = key.key.public_key()
    expected = numbers_of(public)
    assert certified_numbers(key.certify("x.example.org", datetime.now(UTC)).der) == expected
    assert key_numbers(public.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)) == expected
    assert bare_numbers(public.public_bytes(DER, serialization.PublicFormat.PKCS1)) == expected


def test_it_reads_certificates_of_the_first_version(key: SigningKey, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(key.pem)
    request = openssl("req", "-new", "-subj", "/CN=x", "-key", file)
    made = openssl("x509", "-req", "-signkey", file, given=request)
    theirs = x509.load_pem_x509_certificate(made)
    assert theirs.version is x509.Version.v1
    assert certified_numbers(decode_pem(made, b"CERTIFICATE")) == numbers_of(theirs.public_key())


@pytest.mark.fuzz
def test_it_never_finds_another_key_than_the_library(key: SigningKey) -> None:
    """Damaged certificates: both may refuse, but where both find a key, it is the same."""
    der = key.certify("x.example.org").der
    agreed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd serial numbers
        for damaged in mutations([der]):
            try:
                ours = certified_numbers(damaged)
                theirs = numbers_of(x509.load_der_x509_certificate(damaged).public_key())
            except (FormatError, ValueError, x509.InvalidVersion):
                continue
            assert ours == theirs
            agreed += 1
    assert agreed > INPUTS / 30


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (b"", "lacks a DER element"),
        (b"\x30", "lacks a DER element"),
        (b"\x31\0", "lacks a DER element"),
        (b"\x30\x80\0\0", "impossible length"),
        (b"\x30\x85\0\0\0\0\1x", "impossible length"),
        (b"\x30\x81\x05\2\1\3\2\0", "not in its shortest form"),
        (b"\x30\x82\0\x80" + bytes(128), "not in its shortest form"),
        (b"\x30\x06\2\1\3\2\1", "cut short"),
        (b"\x30\x06\2\1\3\2\1\3x", "longer than it says"),
        (b"\x30\x07\2\1\3\2\1\3x", "longer than it says"),
        (b"\x30\x06\2\1\3\2\1\xff", "not positive"),
        (b"\x30\x06\2\1\0\2\1\3", "not positive"),
    ],
)
def test_what_is_no_key_is_refused(der: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        bare_numbers(der)


def test_pem() -> None:
    data = bytes(range(100))
    block = b"-----BEGIN X-----\r\n" + base64.encodebytes(data) + b"-----END X-----\n"
    assert decode_pem(b"a comment\n" + block + block, b"X") == data
    for bad in (b"", block[:30], block.replace(b"END", b"DNE"), block.replace(b"A", b"*", 1)):
        with pytest.raises(FormatError):
            decode_pem(bad, b"X")
    with pytest.raises(FormatError, match="no PEM block Y"):
        decode_pem(block, b"Y")
