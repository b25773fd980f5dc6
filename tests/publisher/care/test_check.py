"""Checking finds what is wrong, names it, and finds nothing where nothing is wrong."""

import hashlib
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.care.check import RepositoryCheck
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.chunking import ChunkSizes
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.reflog import ReferenceKind, Reflog
from cvmfs_graphdriver.repository.trust.letter import Letter, encode_letter
from cvmfs_graphdriver.repository.trust.signing import SigningKey
from tests.support.entries import directory, file, hardlink
from tests.support.fixtures import NAMES, unpack
from tests.support.storage_site import FQRN, Site

BIG = os.urandom(400_000)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, RepositoryOptions(chunking=ChunkSizes(32_768, 65_537, 131_072)))
    entries = [
        file("/small", b"content", xattrs={b"user.a": b"b"}),
        file("/big", BIG),
        file("/d/a", b"x"),
        hardlink("/b", "/d/a"),
    ]
    site.publish({b"/layers/l": entries})
    return site


@pytest.mark.parametrize("name", NAMES)
def test_the_stock_server_s_repositories_are_sound(name: str, tmp_path: Path) -> None:
    published = unpack(name, tmp_path / "fixture")
    check = RepositoryCheck(
        LocalStorage(published.root),
        published.fqrn,
        published.public_keys,
        now=datetime(2026, 12, 1, tzinfo=UTC),
    )
    assert list(check.run()) == []
    assert check.catalogs > 0


@pytest.mark.parametrize("contents", [True, False])
def test_ours_are_sound(site: Site, contents: bool) -> None:
    assert site.findings(contents=contents) == []


def objects(site: Site, suffix: str) -> list[Path]:
    return [
        path
        for path in sorted(site.storage.glob("data/??/*"))
        if (path.name[-1] if path.name[-1].isupper() else "") == suffix
    ]


@pytest.mark.parametrize("suffix", ["", "P", "C", "H", "X", "M"])
@pytest.mark.parametrize("what", ["missing", "flipped", "cut", "longer"])
def test_every_object_s_damage_is_found(site: Site, suffix: str, what: str) -> None:
    manifest = site.open().manifest()
    needed = {manifest.root, manifest.history, manifest.metainfo, manifest.certificate}
    found = 0
    for path in objects(site, suffix):
        digest = Digest.parse(path.parent.name + path.name.removesuffix(suffix))
        if suffix == "H" and digest not in needed:
            continue  # the first revision's history, which only its successor knew
        data = path.read_bytes()
        path.unlink()
        if what == "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif what == "cut":
            path.write_bytes(data[:-1])
        elif what == "longer":
            path.write_bytes(data + b"\0")
        findings = site.findings()
        found += bool(findings)
        if suffix != "C" or findings:
            assert any(digest.text[2:] in finding for finding in findings)
            assert all("missing" in f or "digest" in f or "counted" in f for f in findings), findings
        path.write_bytes(data)
    if suffix == "C":  # those of trunk and trunk-previous and of the layer; others are nobody's concern
        assert found == 3
    assert site.findings() == []


def test_without_contents_only_presence_counts(site: Site) -> None:
    flipped, missing = objects(site, "P")[:2]
    flipped.write_bytes(b"x")
    assert site.findings(contents=False) == []
    missing.unlink()
    (finding,) = site.findings(contents=False)
    assert "/layers/l/big" in finding
    assert "is missing" in finding


def rewrite(site: Site, change: Callable[[sqlite3.Connection], object], *, root: bool = False) -> None:
    """Change a catalog behind everybody's back, and sign what follows from it."""
    repository = site.open()
    manifest = repository.manifest()
    old = site.catalog()
    (reference,) = old.nested()
    old.close()
    digest = manifest.root if root else reference.digest
    new, size = _changed(site, digest, change)
    if not root:

        def refer(sql: sqlite3.Connection) -> None:
            sql.execute("UPDATE nested_catalogs SET sha1 = ?, size = ?", (new.text, size))

        new, size = _changed(site, manifest.root, refer)
    shutil.copy(site.storage / ".cvmfsreflog", site.place / "reflog")
    repository.put_manifest(
        Manifest.parse(
            manifest.export().replace(manifest.root.text.encode(), new.text.encode())
            .replace(b"\nB%d" % manifest.root_size, b"\nB%d" % size)
        )
    )  # fmt: skip


def _changed(
    site: Site, digest: Digest, change: Callable[[sqlite3.Connection], object]
) -> tuple[Digest, int]:
    path = site.place / "changed"
    name = ObjectName(digest, Suffix.CATALOG)
    path.write_bytes(zlib.decompress((site.storage / name.path).read_bytes()))
    connection = sqlite3.connect(path)
    change(connection)
    connection.commit()
    connection.close()
    stored = zlib.compress(path.read_bytes())
    new = Digest.of(stored)
    (site.storage / ObjectName(new, Suffix.CATALOG).path).write_bytes(stored)
    return new, path.stat().st_size


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        ("UPDATE statistics SET value = 7 WHERE counter = 'self_regular'", "self_regular = 7, but it is 5"),
        ("UPDATE statistics SET value = 1 WHERE counter = 'subtree_dir'", "subtree_dir = 1, but it is 0"),
        ("UPDATE statistics SET value = 0 WHERE counter = 'self_xattr'", "self_xattr = 0, but it is 1"),
        ("UPDATE catalog SET hash = NULL WHERE name = 'small'", "/layers/l/small is a file without content"),
        ("UPDATE catalog SET size = 8 WHERE name = 'small'", "does not hold 8 bytes"),
        ("UPDATE catalog SET size = 8 WHERE name = 'big'", "the file has 8"),
        ("UPDATE catalog SET flags = 1 WHERE name = 'small'", "which contradict each other"),
        ("UPDATE catalog SET flags = 3 WHERE name = 'd'", "no catalog is mounted there"),
        ("UPDATE catalog SET flags = 1 WHERE name = 'l'", "root directory is not marked"),
        (
            "UPDATE catalog SET xattr = x'01ff' WHERE name = 'small'",
            "unreadable extended attributes",
        ),
        (
            "UPDATE catalog SET parent_1 = 5 WHERE name = 'small'",
            "has 7 entries, but only 6 of them can be reached",
        ),
        ("UPDATE catalog SET hardlinks = hardlinks + 1 WHERE hardlinks > 9", "has 2 names but says 3"),
        ("DELETE FROM chunks WHERE offset = 0", "do not follow one another"),
        ("UPDATE chunks SET hash = zeroblob(20) WHERE offset = 0", "is missing"),
        ("DELETE FROM catalog WHERE name = 'l'", "has no root directory"),
        ("DROP TABLE catalog", "is not a catalog"),
        (
            "INSERT INTO nested_catalogs VALUES ('/layers/l/x', '" + "ab" * 20 + "', 5)",
            "/layers/l/x, where there is no entry",
        ),
        (
            "INSERT INTO nested_catalogs VALUES ('/layers/l/d', '" + "ab" * 20 + "', 5)",
            "not marked as a mountpoint",
        ),
    ],
)
def test_a_catalog_that_contradicts_itself_is_found(site: Site, sql: str, finding: str) -> None:
    rewrite(site, lambda connection: connection.execute(sql))
    findings = [one for one in site.findings() if "tag trunk" not in one and ".cvmfsreflog" not in one]
    assert any(finding in one for one in findings), findings
    assert all("/layers/l" in one or "subtree_" in one for one in findings), findings


def test_a_dangling_nested_catalog_is_found(site: Site) -> None:
    rewrite(site, lambda sql: sql.execute("DELETE FROM nested_catalogs"), root=True)
    assert any("/layers/l is marked as a mountpoint, but no catalog" in one for one in site.findings())


def test_a_wrong_catalog_size_is_found(site: Site) -> None:
    rewrite(site, lambda sql: sql.execute("UPDATE nested_catalogs SET size = 5"), root=True)
    assert any("bytes, but the reference to it says 5" in one for one in site.findings())


def test_a_forged_manifest_is_found(site: Site) -> None:
    path = site.storage / ".cvmfspublished"
    body = Letter.parse(path.read_bytes()).body
    path.write_bytes(encode_letter(body, site.options.algorithm, SigningKey.generate().sign_manifest))
    assert any("wrong signature" in one for one in site.findings())


@pytest.mark.parametrize("name", [".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog"])
def test_files_at_the_root_are_checked(site: Site, name: str) -> None:
    path = site.storage / name
    data = path.read_bytes()
    path.write_bytes(data.replace(data[20:24], b"0000", 1))
    assert site.findings() != []
    path.unlink()
    assert any(name in finding for finding in site.findings())


def test_an_expired_whitelist_is_found(site: Site) -> None:
    site.clock += 31 * 86400
    assert any("expired" in finding for finding in site.findings())


def test_a_whitelist_that_ends_soon_is_a_warning(site: Site) -> None:
    site.clock += 25 * 86400
    check = site.check()
    assert list(check.run()) == []
    (warning,) = check.warnings
    assert f"the whitelist of {FQRN} expires on 20" in warning


def test_another_master_key_s_whitelist_is_found(site: Site) -> None:
    check = RepositoryCheck(
        LocalStorage(site.storage),
        FQRN,
        [SigningKey.generate().public],
        now=datetime.fromtimestamp(site.clock, UTC),
    )
    assert any("signed by none of the 1 public keys" in finding for finding in check.run())


def test_a_reflog_that_does_not_match_is_found(site: Site) -> None:
    connection = sqlite3.connect(site.storage / ".cvmfsreflog")
    connection.execute("DELETE FROM refs WHERE type = 0")
    connection.commit()
    connection.close()
    check = site.check()
    assert any(".cvmfsreflog does not list" in finding for finding in check.run())
    assert any(".cvmfsreflog does not have the digest" in warning for warning in check.warnings)


def test_a_stock_garbage_collection_leaves_a_warning_until_the_next_publish(site: Site) -> None:
    """It takes revisions out of the reflog, and leaves the manifest as it is."""
    site.publish({b"/m": []})
    reflog = Reflog.open(site.storage / ".cvmfsreflog", fqrn=FQRN)
    first = next(one for one in reflog.references() if one.kind is ReferenceKind.CATALOG)
    reflog.remove(first.digest)
    reflog.finish()
    reflog.close()
    check = site.check()
    assert list(check.run()) == []
    assert len(check.warnings) == 1
    site.publish({b"/n": []})
    check = site.check()
    assert list(check.run()) == []
    assert check.warnings == []


def test_old_revisions_with_a_tag_are_checked(site: Site) -> None:
    with Transaction(site.open()) as transaction:
        transaction.publish(tag="keep")
    kept = site.open().manifest().root
    site.publish({b"/l2": [directory("/d")]})
    site.publish({b"/l2": [directory("/e")]})
    (site.storage / ObjectName(kept, Suffix.CATALOG).path).unlink()
    (finding,) = site.findings()
    assert finding.startswith("tag keep: catalog ")
    assert hashlib.sha1(b"").hexdigest() not in finding


def test_no_repository_is_a_finding(site: Site) -> None:
    (site.storage / ".cvmfspublished").unlink()
    (finding,) = site.findings()
    assert "there is no .cvmfspublished" in finding
