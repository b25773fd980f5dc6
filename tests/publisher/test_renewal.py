"""Certificate and metainfo are what a replication makes of them, and become it where they are not."""

import zlib
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.renewal import renew
from cvmfs_graphdriver.repository.compression import Engine, compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from tests.support.entries import file
from tests.support.storage_site import Site


def auxiliary(site: Site) -> list[ObjectName]:
    manifest = site.open().manifest()
    assert manifest.certificate
    assert manifest.metainfo
    return [
        ObjectName(manifest.certificate, Suffix.CERTIFICATE),
        ObjectName(manifest.metainfo, Suffix.METAINFO),
    ]


def is_replicable(site: Site) -> bool:
    """Replicate as ``cvmfs_swissknife pull`` does, and look whether the objects have their digests."""
    copies = {
        name: zlib.compress(zlib.decompress(site.at().get(name.path, limit=1 << 20) or b""), 6)
        for name in auxiliary(site)
    }
    return all(Digest.of(copy) == name.digest for name, copy in copies.items())


@pytest.fixture
def broken(tmp_path: Path) -> Site:
    """A repository as earlier versions made it: everything compressed by ISA-L."""
    site = Site(tmp_path)
    site.publish({b"/l": [file("/f", b"content")]})
    repository = site.open()
    changed = []
    for name in auxiliary(site):
        stored = compress(zlib.decompress((site.storage / name.path).read_bytes()), engine=Engine.ISAL)
        changed.append(Digest.of(stored))
        (site.storage / ObjectName(changed[-1], name.suffix).path).write_bytes(stored)
    manifest = repository.manifest()
    repository.put_manifest(manifest._replace(certificate=changed[0], metainfo=changed[1]))
    return site


@pytest.mark.parametrize("engine", Engine)
def test_every_repository_can_be_replicated(tmp_path: Path, engine: Engine) -> None:
    site = Site(tmp_path, RepositoryOptions(engine=engine))
    assert is_replicable(site)
    site.publish({b"/l": [file("/f", b"content")]})
    assert is_replicable(site)
    assert site.findings() == []


def test_check_finds_what_cannot_be_replicated(broken: Site) -> None:
    assert not is_replicable(broken)
    found = [finding for finding in broken.findings() if "stratum 1" in finding]
    assert [finding.partition(":")[0] for finding in found] == ["the certificate", "the metainfo"]


def test_the_next_publish_mends_it(broken: Site) -> None:
    broken.publish({b"/m": []})
    assert is_replicable(broken)
    assert broken.findings() == []


def test_resigning_mends_it_and_makes_no_revision(broken: Site) -> None:
    before = broken.open().manifest()
    renew(broken.open())
    after = broken.open().manifest()
    assert is_replicable(broken)
    assert broken.findings() == []
    assert (after.revision, after.root) == (before.revision, before.root)


def test_resigning_what_is_sound_leaves_the_manifest_alone(tmp_path: Path) -> None:
    site = Site(tmp_path)
    before = site.open().manifest()
    renew(site.open())
    assert site.open().manifest() == before
