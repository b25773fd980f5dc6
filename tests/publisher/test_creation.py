"""Creating, opening and signing repositories, and the keys that it takes."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.creation import check_fqrn, create_repository
from cvmfs_graphdriver.publisher.errors import KeyringError, PublisherError, StorageError
from cvmfs_graphdriver.publisher.keyring import Keyring
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.repository.digest import Algorithm, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import TrustError
from cvmfs_graphdriver.repository.trust.blacklist import Blacklist
from cvmfs_graphdriver.repository.trust.chain import TrustChain
from cvmfs_graphdriver.repository.trust.keys import load_public_keys
from cvmfs_graphdriver.repository.trust.letter import Letter
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist
from tests.support.storage_site import FQRN, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_a_new_repository_can_be_proven(tmp_path: Path, algorithm: Algorithm) -> None:
    site = Site(tmp_path, RepositoryOptions(algorithm=algorithm, ttl=77, garbage_collectable=False))
    keys = load_public_keys((site.keys / f"{FQRN}.pub").read_bytes())
    chain = TrustChain(FQRN, keys, blacklist=Blacklist())
    manifest = chain.manifest((site.storage / ".cvmfspublished").read_bytes())
    assert manifest.certificate is not None
    certificate = ObjectName(manifest.certificate, Suffix.CERTIFICATE)
    chain.certificate((site.storage / certificate.path).read_bytes())
    chain.whitelist((site.storage / ".cvmfswhitelist").read_bytes(), datetime.fromtimestamp(site.clock, UTC))
    assert chain.verified == manifest
    assert manifest.root.algorithm is algorithm
    assert (manifest.revision, manifest.ttl, manifest.garbage_collectable) == (1, 77, False)
    assert site.findings() == []
    assert site.names() == {b""}


def test_keys_are_private(site: Site) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in site.keys.iterdir()}
    assert modes == {
        f"{FQRN}.masterkey": 0o400,
        f"{FQRN}.key": 0o400,
        f"{FQRN}.crt": 0o444,
        f"{FQRN}.pub": 0o444,
    }


@pytest.mark.parametrize("fqrn", ["", "nodots", "a..b", "../x.y", "a.b/c", "a b.c", "a.b\n", "x." + "y" * 60])
def test_names_that_are_none(fqrn: str) -> None:
    with pytest.raises(PublisherError, match="is not a valid repository name"):
        check_fqrn(fqrn)


@pytest.mark.parametrize("fqrn", ["atlas.cern.ch", "a_b.c-d", "unpacked.cern.ch"])
def test_names_that_are_good(fqrn: str) -> None:
    check_fqrn(fqrn)


def test_there_is_only_one_repository_in_a_storage(site: Site, tmp_path: Path) -> None:
    before = site.files()
    with pytest.raises(PublisherError, match="already"):
        create_repository("other.example.org", LocalStorage(site.storage), tmp_path / "other")
    assert site.files() == before
    assert not (tmp_path / "other").exists()


def test_keys_are_never_overwritten_and_a_failure_leaves_them(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / f"{FQRN}.pub").write_text("precious")
    storage = LocalStorage.create(tmp_path / "storage")
    with pytest.raises(KeyringError, match=r"exists: the keys of .* are never overwritten"):
        create_repository(FQRN, storage, keys)
    assert [path.name for path in keys.iterdir()] == [f"{FQRN}.pub"]
    assert (keys / f"{FQRN}.pub").read_text() == "precious"


class Full(LocalStorage):
    """Has no room for files with a certain ending."""

    ending = ""

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        if name.endswith(self.ending):
            raise StorageError("full")
        super().put(name, data)


@pytest.mark.parametrize("ending", ["C", "X", ".cvmfsreflog", ".cvmfswhitelist", ".cvmfspublished", "H", "M"])
def test_a_creation_that_fails_leaves_nothing(tmp_path: Path, ending: str) -> None:
    LocalStorage.create(tmp_path / "storage")
    storage = Full(tmp_path / "storage")
    storage.ending = ending
    with pytest.raises(StorageError, match="full"):
        create_repository(FQRN, storage, tmp_path / "keys")
    assert list((tmp_path / "keys").iterdir()) == []
    files = [path for path in storage.directory.rglob("*") if path.is_file() and path.name != ".lock"]
    assert files == []
    create_repository(FQRN, LocalStorage(storage.directory), tmp_path / "keys")


@pytest.mark.parametrize("suffix", ["key", "crt", "pub"])
def test_a_key_that_is_missing_or_none_is_named(site: Site, suffix: str) -> None:
    path = site.keys / f"{FQRN}.{suffix}"
    path.chmod(0o600)
    path.write_bytes(b"-----BEGIN NONSENSE-----\n")
    with pytest.raises(KeyringError, match="cannot be used"):
        site.open()
    path.unlink()
    with pytest.raises(KeyringError, match=str(path)):
        site.open()


def test_another_repository_s_keys_do_not_open_it(site: Site, tmp_path: Path) -> None:
    Keyring.create(FQRN, tmp_path / "other")
    with pytest.raises(TrustError, match="is not signed by the given key"):
        Repository.open(FQRN, LocalStorage(site.storage), tmp_path / "other")
    Keyring.create("other.example.org", tmp_path / "other")
    with pytest.raises(PublisherError, match=f"is {FQRN}, not other"):
        Repository.open("other.example.org", LocalStorage(site.storage), tmp_path / "other")


def test_no_repository(tmp_path: Path, site: Site) -> None:
    with pytest.raises(PublisherError, match="there is no repository in"):
        Repository.open(FQRN, LocalStorage.create(tmp_path / "new"), site.keys)
    with pytest.raises(PublisherError, match="there is no repository in"):
        Repository.open(FQRN, LocalStorage(tmp_path / "none"), site.keys)


def whitelist(site: Site) -> Whitelist:
    return Whitelist.parse(Letter.parse((site.storage / ".cvmfswhitelist").read_bytes()).body)


def test_the_whitelist_is_signed_again(site: Site) -> None:
    first = whitelist(site)
    assert first.expires - first.created == timedelta(days=30)
    site.clock += 29 * 86400
    site.open().resign()
    second = whitelist(site)
    assert second.expires - first.expires == timedelta(days=29)
    assert second.fingerprints == first.fingerprints
    assert site.findings() == []


def test_without_the_master_key_only_the_whitelist_is_out_of_reach(site: Site) -> None:
    (site.keys / f"{FQRN}.masterkey").unlink()
    site.publish({b"/l": []})
    with pytest.raises(PublisherError, match="master key"):
        site.open().resign()
    assert site.findings() == []


def test_a_repository_keeps_what_its_manifest_says(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(algorithm=Algorithm.SHAKE128, ttl=99, garbage_collectable=False))
    opened = Repository.open(FQRN, LocalStorage(site.storage), site.keys)
    assert opened.options == RepositoryOptions(
        algorithm=Algorithm.SHAKE128, ttl=99, garbage_collectable=False
    )
