"""The trust chain: real repositories pass, and every break of it is refused by name."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError, RepositoryError, TrustError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.blacklist import Blacklist
from cvmfs_graphdriver.repository.trust.chain import TrustChain
from cvmfs_graphdriver.repository.trust.letter import Letter, encode_letter
from cvmfs_graphdriver.repository.trust.signing import SigningKey
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist
from tests.support.fixtures import NAMES, unpack

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FQRN = "ours.example.org"


class Signed:
    """A repository's root, signed by keys of its own."""

    def __init__(self, fqrn: str = FQRN, revision: int = 7) -> None:
        self.master = SigningKey.generate()
        self.key = SigningKey.generate()
        self.certificate = self.key.certify(fqrn)
        self.stored_certificate = compress(self.certificate.pem)
        self.fields = Manifest(
            root=Digest.of(b"root"),
            ttl=240,
            revision=revision,
            fqrn=fqrn,
            timestamp=1000,
            certificate=Digest.of(self.stored_certificate),
        )
        self.white = Whitelist(
            fqrn, NOW - timedelta(days=1), NOW + timedelta(days=1), (self.certificate.fingerprint(),)
        )

    def manifest(self) -> bytes:
        return encode_letter(self.fields.export(), Algorithm.SHA1, self.key.sign_manifest)

    def whitelist(self) -> bytes:
        return encode_letter(self.white.export(), Algorithm.SHA1, self.master.sign_whitelist)

    def chain(self, **more: Blacklist) -> TrustChain:
        return TrustChain(FQRN, [self.master.public], **more)


def run(chain: TrustChain, manifest: bytes, certificate: bytes, whitelist: bytes) -> Manifest:
    chain.manifest(manifest)
    chain.certificate(certificate)
    chain.whitelist(whitelist, NOW)
    return chain.verified


@pytest.fixture(scope="module")
def ours() -> Signed:
    return Signed()


@pytest.fixture(scope="module")
def theirs() -> Signed:
    return Signed()


@pytest.mark.parametrize("name", NAMES)
def test_a_real_repository_is_trusted(name: str, tmp_path: Path) -> None:
    published = unpack(name, tmp_path / "fixture")
    chain = TrustChain(published.fqrn, published.public_keys)
    data = published.stored(".cvmfspublished")
    manifest = chain.manifest(data)
    chain.certificate(published.stored(chain.certificate_name.path))
    whitelist = published.stored(".cvmfswhitelist")
    chain.whitelist(whitelist, datetime.now(UTC))
    assert chain.verified == manifest
    assert manifest.export() == Letter.parse(data).body
    assert Whitelist.parse(Letter.parse(whitelist).body).export() == Letter.parse(whitelist).body


def test_ours_is_trusted(ours: Signed) -> None:
    assert run(ours.chain(), ours.manifest(), ours.stored_certificate, ours.whitelist()) == ours.fields


@pytest.mark.parametrize("what", ["manifest", "certificate", "whitelist"])
def test_no_flipped_byte_and_no_truncation_passes(ours: Signed, what: str) -> None:
    parts = {
        "manifest": ours.manifest(),
        "certificate": ours.stored_certificate,
        "whitelist": ours.whitelist(),
    }
    good = parts[what]
    broken = [good[:cut] for cut in range(0, len(good), 7)]
    broken += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 3)]
    for bad in broken:
        with pytest.raises(RepositoryError, match=f"{what}.*{FQRN}|{FQRN}.*{what}|is not on the whitelist"):
            run(ours.chain(), **{**parts, what: bad})


def test_validly_signed_parts_of_another_repository_are_refused(ours: Signed, theirs: Signed) -> None:
    good = (ours.manifest(), ours.stored_certificate, ours.whitelist())
    with pytest.raises(DigestMismatchError, match="certificate .* does not have its digest"):
        run(ours.chain(), good[0], theirs.stored_certificate, good[2])
    with pytest.raises(DigestMismatchError, match="certificate"):
        run(ours.chain(), theirs.manifest(), good[1], good[2])
    with pytest.raises(TrustError, match="not on the whitelist"):
        run(ours.chain(), theirs.manifest(), theirs.stored_certificate, good[2])
    with pytest.raises(TrustError, match="signed by none of the 1 public keys"):
        run(ours.chain(), good[0], good[1], theirs.whitelist())


def test_another_name_is_refused(ours: Signed) -> None:
    other = Signed("other.example.org")
    with pytest.raises(TrustError, match="another repository, 'other.example.org'"):
        ours.chain().manifest(other.manifest())
    strange = Whitelist("other.example.org", ours.white.created, ours.white.expires, ours.white.fingerprints)
    signed = encode_letter(strange.export(), Algorithm.SHA1, ours.master.sign_whitelist)
    with pytest.raises(TrustError, match="whitelist .* another repository,"):
        run(ours.chain(), ours.manifest(), ours.stored_certificate, signed)


def test_a_manifest_signed_by_another_key_is_refused(ours: Signed, theirs: Signed) -> None:
    forged = encode_letter(ours.fields.export(), Algorithm.SHA1, theirs.key.sign_manifest)
    with pytest.raises(TrustError, match="manifest .* wrong signature"):
        run(ours.chain(), forged, ours.stored_certificate, ours.whitelist())


def test_an_expired_whitelist_is_refused(ours: Signed) -> None:
    chain = ours.chain()
    chain.manifest(ours.manifest())
    chain.certificate(ours.stored_certificate)
    with pytest.raises(TrustError, match="whitelist of ours.example.org expired on 2026-11-24 12:00 UTC"):
        chain.whitelist(ours.whitelist(), NOW + timedelta(days=1, hours=1))
    chain.whitelist(ours.whitelist(), NOW + timedelta(days=1, minutes=59))  # whole hours count


def test_wrong_master_key_is_refused(ours: Signed, theirs: Signed) -> None:
    chain = TrustChain(FQRN, [theirs.master.public])
    with pytest.raises(TrustError, match="check CVMFS_PUBLIC_KEY"):
        run(chain, ours.manifest(), ours.stored_certificate, ours.whitelist())


def test_an_older_manifest_is_a_replay(ours: Signed) -> None:
    ours.chain().manifest(ours.manifest(), newest_timestamp=1000)
    with pytest.raises(TrustError, match="older than one seen before"):
        ours.chain().manifest(ours.manifest(), newest_timestamp=1001)


def test_blacklists_count(ours: Signed) -> None:
    revision = Blacklist.parse(f"<{FQRN} 8".encode())
    with pytest.raises(TrustError, match="revision 7 of ours.example.org is blacklisted"):
        ours.chain(blacklist=revision).manifest(ours.manifest())
    ours.chain(blacklist=Blacklist.parse(f"<{FQRN} 7".encode())).manifest(ours.manifest())
    mark = Blacklist.parse(f"# a comment\n{ours.certificate.fingerprint().text} stolen\n".encode())
    with pytest.raises(TrustError, match="certificate .* is blacklisted"):
        run(ours.chain(blacklist=mark), ours.manifest(), ours.stored_certificate, ours.whitelist())


def test_only_the_legal_order_works(ours: Signed) -> None:
    chain = ours.chain()
    with pytest.raises(TrustError, match="manifest .* first"):
        chain.certificate(ours.stored_certificate)
    with pytest.raises(TrustError, match="before the certificate"):
        chain.whitelist(ours.whitelist(), NOW)
    chain.manifest(ours.manifest())
    with pytest.raises(TrustError, match="not proven yet"):
        _ = chain.verified
    chain.certificate(ours.stored_certificate)
    with pytest.raises(TrustError, match="not proven yet"):
        _ = chain.verified
    chain.whitelist(ours.whitelist(), NOW)
    chain.manifest(ours.manifest())  # a new manifest needs new proof
    with pytest.raises(TrustError, match="not proven yet"):
        _ = chain.verified


def test_a_manifest_without_certificate_proves_nothing(ours: Signed) -> None:
    bare = Manifest(root=Digest.of(b"x"), ttl=1, revision=1, fqrn=FQRN)
    chain = ours.chain()
    chain.manifest(encode_letter(bare.export(), Algorithm.SHA1, ours.key.sign_manifest))
    with pytest.raises(TrustError, match="names no certificate"):
        chain.certificate(ours.stored_certificate)


def test_required_letters(ours: Signed) -> None:
    lines = ours.fields.export().splitlines(keepends=True)
    for letter in b"CRDS":
        body = b"".join(line for line in lines if line[0] != letter)
        signed = encode_letter(body, Algorithm.SHA1, ours.key.sign_manifest)
        with pytest.raises(FormatError, match=f"lacks line {chr(letter)}"):
            ours.chain().manifest(signed)
