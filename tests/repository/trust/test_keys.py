"""Keys and certificates, against OpenSSL's own tools and against hostile PEM."""

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cvmfs_graphdriver.repository.digest import Algorithm, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.keys import Certificate, Fingerprint, load_public_keys
from cvmfs_graphdriver.repository.trust.letter import Letter
from cvmfs_graphdriver.repository.trust.signing import SigningKey
from tests.support.fixtures import unpack
from tests.support.mutations import INPUTS, survives

NOW = datetime(2026, 11, 23, 12, 0, 0, 999, tzinfo=UTC)
TEXT = b"1f6401ce7f5bd8dbe0e7c3d9a5ff0bcd0b1ba5a0-rmd160"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


def test_keys_are_what_openssl_reads_and_writes(key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(key.pem)
    assert openssl("pkey", "-in", tmp_path / "key", "-pubout") == key.public.pem
    openssl("genrsa", "-out", tmp_path / "theirs", "2048")
    theirs = SigningKey.parse((tmp_path / "theirs").read_bytes())
    assert theirs.pem == (tmp_path / "theirs").read_bytes()
    assert key.key.key_size == theirs.key.key_size
    traditional = openssl("rsa", "-in", tmp_path / "theirs", "-traditional")
    assert SigningKey.parse(traditional).pem == theirs.pem


def test_certificates_are_like_those_of_the_stock_server(key: SigningKey, tmp_path: Path) -> None:
    published = unpack("empty", tmp_path / "fixture")
    manifest = Manifest.parse(Letter.parse(published.stored(".cvmfspublished")).body)
    assert manifest.certificate is not None
    theirs = Certificate.parse(published.content(ObjectName(manifest.certificate, Suffix.CERTIFICATE)))
    ours = key.certify(published.fqrn, NOW)
    read, theirs_read = (x509.load_pem_x509_certificate(one.pem) for one in (ours, theirs))
    assert read.subject == theirs_read.subject
    assert read.issuer == theirs_read.issuer
    assert read.signature_algorithm_oid == theirs_read.signature_algorithm_oid
    assert list(read.extensions) == list(theirs_read.extensions) == []
    assert (read.not_valid_after_utc - read.not_valid_before_utc).days == 365
    read.verify_directly_issued_by(read)
    (tmp_path / "crt").write_bytes(ours.pem)
    assert key.public.pem == openssl("x509", "-in", tmp_path / "crt", "-pubkey", "-noout")
    said = openssl("x509", "-in", tmp_path / "crt", "-fingerprint", "-sha1", "-noout").decode().strip()
    assert said.partition("=")[2] == ours.fingerprint().text


def test_long_names_are_cut_as_the_stock_server_cuts_them(key: SigningKey) -> None:
    def name(fqrn: str) -> str:
        return x509.load_pem_x509_certificate(key.certify(fqrn).pem).subject.rfc4514_string()

    assert name("a" * 26 + ".org") == "CN=" + "a" * 26 + ".org CernVM-FS Release Managers"
    assert name("a" * 27 + ".org") == "CN=" + "a" * 27 + ".or[...] CernVM-FS Release Managers"


def test_signatures_are_what_openssl_verifies(key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "pub").write_bytes(key.public.pem)
    (tmp_path / "text").write_bytes(TEXT)
    (tmp_path / "manifest").write_bytes(key.sign_manifest(TEXT))
    (tmp_path / "whitelist").write_bytes(key.sign_whitelist(TEXT))
    manifest = ("dgst", "-sha1", "-verify", tmp_path / "pub", "-signature", tmp_path / "manifest")
    assert openssl(*manifest, tmp_path / "text") == b"Verified OK\n"
    recover = (
        "pkeyutl",
        "-verifyrecover",
        "-pubin",
        "-inkey",
        tmp_path / "pub",
        "-in",
        tmp_path / "whitelist",
    )
    assert openssl(*recover) == TEXT


def test_the_two_rules_of_signing_are_not_mixed_up(key: SigningKey) -> None:
    certificate = key.certify("x.example.org")
    assert certificate.verifies_manifest(TEXT, key.sign_manifest(TEXT))
    assert key.public.verifies_whitelist(TEXT, key.sign_whitelist(TEXT))
    assert not certificate.verifies_manifest(TEXT, key.sign_whitelist(TEXT))
    assert not key.public.verifies_whitelist(TEXT, key.sign_manifest(TEXT))
    for signature in (b"", b"\0", b"\xff" * 256, b"\0" * 256, b"x" * 255, b"x" * 257, b"x" * 100_000):
        assert not certificate.verifies_manifest(TEXT, signature)
        assert not key.public.verifies_whitelist(TEXT, signature)


def test_fingerprints() -> None:
    text = ":".join(["0A"] * 20)
    assert Fingerprint.parse(text).text == text
    for algorithm in (Algorithm.RMD160, Algorithm.SHAKE128):
        long = text + algorithm.identifier.upper()
        assert Fingerprint.parse(f"{long} # comment").digest.algorithm is algorithm
        assert Fingerprint.parse(long).text == long
    for bad in ("", "#", " ", "0A:", "x" * 59, text + "-MD5"):
        with pytest.raises(FormatError):
            Fingerprint.parse(bad)


def test_several_keys_in_one_file(key: SigningKey) -> None:
    other = SigningKey.generate()
    assert load_public_keys(b"comment\n" + key.public.pem + b"\n" + other.public.pem) == [
        key.public,
        other.public,
    ]


def test_what_is_no_rsa_key_is_refused(key: SigningKey) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    with pytest.raises(FormatError, match="not RSA"):
        load_public_keys(curve.public_key().public_bytes(serialization.Encoding.PEM, form))
    private = serialization.PrivateFormat.PKCS8
    with pytest.raises(FormatError, match="not RSA"):
        SigningKey.parse(
            curve.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        )
    locked = serialization.BestAvailableEncryption(b"secret")
    with pytest.raises(FormatError, match="unencrypted"):
        SigningKey.parse(key.key.private_bytes(serialization.Encoding.PEM, private, locked))
    for nothing in (b"", key.pem, key.certify("x.org").pem):
        with pytest.raises(FormatError, match="public key"):
            load_public_keys(nothing)
    with pytest.raises(FormatError, match="certificate"):
        Certificate.parse(key.pem)


@pytest.mark.fuzz
def test_no_input_surprises(key: SigningKey) -> None:
    certificate = key.certify("x.example.org")
    signature = key.sign_manifest(TEXT)

    def parse(data: bytes) -> None:
        parsed = Certificate.parse(data)
        parsed.fingerprint()
        parsed.verifies_manifest(TEXT, signature)

    # DER is damaged as well as its envelope.
    public = key.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert survives(parse, [certificate.pem]) > 0.5
    assert survives(lambda data: parse(envelope(data, b"CERTIFICATE")), [certificate.der]) > 0.24
    assert survives(load_public_keys, [key.public.pem]) > 0.5

    def use(data: bytes) -> None:
        for found in load_public_keys(envelope(data, b"PUBLIC KEY")):
            found.verifies_whitelist(TEXT, signature)

    assert survives(use, [public]) > 0.24
    assert survives(SigningKey.parse, [key.pem], INPUTS // 50) > 0.5


def envelope(der: bytes, kind: bytes) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (kind, base64.encodebytes(der), kind)


def test_keys_too_odd_to_use_prove_nothing() -> None:
    numbers = rsa.RSAPublicNumbers(e=65537, n=(1 << 2047) + 1)
    odd = numbers.public_key()
    pem = odd.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (key,) = load_public_keys(pem)
    assert not key.verifies_whitelist(TEXT, b"\1" * 256)
