"""The configuration repository on nodes where nobody has mounted it: fetched, kept, renewed."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.config_repository import fetched_config_repository, load_settings
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from tests.support.entries import Item, file
from tests.support.published import Published, published

WANTED = "wanted.example.org"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    """Mounted nowhere; it says where ``WANTED`` is to be had, and which key that has."""
    with published(tmp_path / "repository") as repository:
        local = repository.etc / "default.local"
        (repository.etc / "default.conf").write_text(
            f"CVMFS_CONFIG_REPOSITORY={repository.fqrn}\nCVMFS_MOUNT_DIR={tmp_path}/nowhere\n"
        )
        # What the node says about all repositories would hide what the configuration repository says.
        lines = local.read_text().splitlines(keepends=True)
        own = [line for line in lines if line.startswith(("CVMFS_SERVER_URL", "CVMFS_KEYS_DIR"))]
        local.write_text("".join(line for line in lines if line not in own))
        (repository.etc / "config.d").mkdir()
        (repository.etc / "config.d" / f"{repository.fqrn}.conf").write_text("".join(own))
        repository.publish({b"/etc": tree("http://first")})
        yield repository


def link(path: bytes, target: bytes) -> Item:
    return TreeEntry(path, stat.S_IFLNK | 0o777, symlink=target), None


def tree(server: str) -> list[Item]:
    keys = "CVMFS_KEYS_DIR=$CVMFS_MOUNT_DIR/$CVMFS_CONFIG_REPOSITORY/etc/cvmfs/keys\n"
    return [
        file("/cvmfs/default.conf", keys.encode()),
        file("/cvmfs/keys/some.pub", b"a key"),
        file("/cvmfs/common.conf", f"CVMFS_SERVER_URL={server}/cvmfs/@fqrn@\n".encode()),
        (
            TreeEntry(b"/cvmfs/domain.d/example.org.conf", stat.S_IFLNK | 0o777, symlink=b"../common.conf"),
            None,
        ),
        (TreeEntry(b"/cvmfs/odd", stat.S_IFLNK | 0o777, symlink=b"/../../../etc/passwd"), None),
        file("/cvmfs/blacklist", b""),
        file(f"/cvmfs/only-in-{server[7:]}", b""),
    ]


def settings(repository: Published, *, fetch: bool) -> RepositorySettings:
    find = fetched_config_repository(repository.etc, {}) if fetch else None
    return load_settings(WANTED, repository.etc, config_repository=find)


def test_it_is_fetched_once_and_then_kept_without_a_server(repository: Published) -> None:
    with pytest.raises(ConfigurationError, match="no server is configured"):
        settings(repository, fetch=False)
    found = settings(repository, fetch=True)
    assert found.network.servers == (f"http://first/cvmfs/{WANTED}",)
    (key,) = found.trust.public_keys
    assert key.read_bytes() == b"a key"
    shared = found.configuration.shared
    assert shared is not None
    assert found.trust.blacklists[1] == shared / "blacklist"
    assert not (shared / "odd").exists()
    assert settings(repository, fetch=False) == found
    own = repository.etc / "config.d" / f"{repository.fqrn}.conf"
    own.write_text(own.read_text().replace(repository.served.url, "http://127.0.0.1:9"))
    assert settings(repository, fetch=True).network.servers == found.network.servers


def test_a_newer_revision_replaces_the_copy_file_by_file(repository: Published) -> None:
    shared = settings(repository, fetch=True).configuration.shared
    assert shared is not None
    assert (shared / "only-in-first").exists()
    repository.publish({b"/etc": tree("http://second")}, remove=[b"/etc"])
    found = settings(repository, fetch=True)
    assert found.network.servers == (f"http://second/cvmfs/{WANTED}",)
    assert found.configuration.shared == shared
    assert sorted(path.name for path in shared.iterdir() if "only" in path.name) == ["only-in-second"]


def test_one_that_is_required_and_cannot_be_had(repository: Published) -> None:
    (repository.etc / "config.d" / f"{repository.fqrn}.conf").unlink()
    with (repository.etc / "default.conf").open("a") as configuration:
        configuration.write("CVMFS_CONFIG_REPO_REQUIRED=yes\n")
    with pytest.raises(ConfigurationError, match="is unavailable.*can be fetched"):
        settings(repository, fetch=True)
