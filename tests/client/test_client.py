"""Which revision is mounted: the newest, the one known last, the one that is named; and plain errors."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.errors import (
    CacheError,
    ConfigurationError,
    NotFoundError,
    RevisionError,
    TransferError,
    UnreachableError,
)
from cvmfs_graphdriver.repository.compression import compress, decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from tests.client.tree.test_revision import read, walk
from tests.support.fixtures import Server, serve
from tests.support.resigned import ResignedRepository

# Root catalogs and numbers of revisions of the fixture kitchen-sha1.
V1 = ("e2de24c5c7f1cc91950c63565aa4802c9e3ca219", 5)
V2 = ("1f4b1cd42d18db87ae14900d0c80c02f020ba20a", 6)
V3 = ("87474825befa042d6f55a5ea81510033c815cc9f", 7)


@pytest.fixture
def repository(tmp_path: Path) -> ResignedRepository:
    return ResignedRepository("kitchen-sha1", tmp_path / "repository")


@pytest.fixture
def server(repository: ResignedRepository) -> Iterator[Server]:
    with serve(repository.directory) as server:
        yield server


def _client(repository: ResignedRepository, server: Server, **overrides: str) -> Client:
    return Client(repository.unpacked.settings(server.url, repository.directory, **overrides))


def test_new_revision_is_found_once(repository: ResignedRepository, server: Server) -> None:
    repository.publish(*V1)
    with closing(_client(repository, server)) as client:
        old = client.mount()
        assert old.number == 5
        assert client.refresh() is None
        repository.publish(*V2, seconds=5)
        new = client.refresh()
        assert new is not None
        assert new.number == 6
        assert client.current is new
        assert client.refresh() is None
        # The old one is still there, whole.
        assert len([*walk(old, old.top)]) != len([*walk(new, new.top)])
        assert old.lookup(b"") == old.top


def test_unchanged_manifest_needs_no_more_requests(repository: ResignedRepository, server: Server) -> None:
    with closing(_client(repository, server)) as client:
        client.mount()
        server.requests.clear()
        client.refresh()
        assert dict(server.requests) == {f"/cvmfs/{repository.fqrn}/.cvmfspublished": 1}


def test_what_is_in_the_cache_is_mounted_without_servers(
    repository: ResignedRepository, server: Server
) -> None:
    with closing(_client(repository, server)) as client:
        revision = client.mount()
        nodes = [*walk(revision, revision.top)]
        files = [node for node in nodes if node.entry.is_regular]
        content = {node.path: read(revision, node) for node in files[:20]}
    gone = "http://127.0.0.1:9/cvmfs/@fqrn@"
    with closing(_client(repository, server, CVMFS_SERVER_URL=gone)) as client:
        revision = client.mount()
        assert isinstance(client.offline_because, UnreachableError)
        assert 170 < client.next_refresh - client.started < 190
        again = [*walk(revision, revision.top)]
        assert [node.path for node in again] == [node.path for node in nodes]
        assert [node.inode for node in again] == [node.inode for node in nodes]
        for node in again:
            if node.path in content:
                assert read(revision, node) == content[node.path]
        missing = next(node for node in again if node.entry.is_regular and node.path not in content)
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
            read(revision, missing)
        with pytest.raises(TransferError):
            client.refresh()
    # Servers are back.
    with closing(_client(repository, server)) as client:
        client.mount()
        assert client.offline_because is None


def test_damaged_breadcrumb_is_none(repository: ResignedRepository, server: Server) -> None:
    with closing(_client(repository, server)) as client:
        client.mount()
    crumb = repository.directory / "cache" / "shared" / f"cvmfschecksum.{repository.fqrn}"
    assert crumb.read_text().startswith(V3[0] + "T")
    for text in ("", "nonsense", "x" * 10000, "\xff\xfe", V3[0] + "T99999999999999999999999"):
        crumb.write_bytes(text.encode("latin-1"))
        with closing(_client(repository, server)) as client:
            assert client.mount().number == 7


def test_revisions_that_the_configuration_names(repository: ResignedRepository, server: Server) -> None:
    for overrides, number in (
        ({"CVMFS_ROOT_HASH": V1[0]}, 5),
        ({"CVMFS_REPOSITORY_TAG": "v2"}, 6),
        ({"CVMFS_REPOSITORY_DATE": "2026-11-23T18:31:48Z"}, 4),
    ):
        with closing(_client(repository, server, **overrides)) as client:
            revision = client.mount()
            assert revision.number == number
            repository.publish(*V3, seconds=1)
            assert client.refresh() is None
            assert revision.magic_xattr(revision.top, b"user.expires") == b"never (fixed root catalog)"


def test_a_tag_on_a_branch_is_pinned_by_its_name_alone(
    repository: ResignedRepository, server: Server, tmp_path: Path
) -> None:
    before = repository.published.history
    assert before is not None
    path = tmp_path / "history"
    path.write_bytes(decompress((repository.root / ObjectName(before, Suffix.HISTORY).path).read_bytes()))
    late = 1_900_000_000
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO branches VALUES ('devel', '', 5)")
        row = ("branched", V1[0], 9, late, 0, "", 0, "devel")
        connection.execute("INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    stored = compress(path.read_bytes())
    history = ObjectName(Digest.of(stored), Suffix.HISTORY)
    (repository.root / history.path).write_bytes(stored)
    repository.published = repository.published._replace(history=history.digest)
    repository.publish()
    for overrides, number in (
        ({"CVMFS_REPOSITORY_TAG": "branched"}, 5),
        ({"CVMFS_REPOSITORY_DATE": "2035-01-01"}, 7),  # the trunk's newest, not the branch's
    ):
        with closing(_client(repository, server, **overrides)) as client:
            assert client.mount().number == number


def test_named_revisions_that_do_not_exist(repository: ResignedRepository, server: Server) -> None:
    for overrides, message in (
        ({"CVMFS_REPOSITORY_TAG": "v9"}, "has no tag 'v9'"),
        ({"CVMFS_REPOSITORY_DATE": "2000-01-01"}, "no revision as old as 2000-01-01"),
        ({"CVMFS_ROOT_HASH": "ab" * 20}, "does not exist"),
    ):
        with (
            closing(_client(repository, server, **overrides)) as client,
            pytest.raises((RevisionError, NotFoundError), match=message),
        ):
            client.mount()


def test_bootstrap_paths(repository: ResignedRepository, server: Server) -> None:
    root = repository.root
    certificate = repository.published.certificate
    assert certificate is not None
    for text in (f"{certificate}X", f"{V3[0]}C"):
        shutil.move(root / "data" / text[:2] / text[2:], root / f".cvmfsalt-{text}")
    with closing(_client(repository, server)) as client, pytest.raises(NotFoundError):
        client.mount()
    with closing(_client(repository, server, CVMFS_ALT_ROOT_PATH="yes")) as client:
        assert client.mount().number == 7


def test_time_between_looks(repository: ResignedRepository, server: Server) -> None:
    for overrides, seconds in (({}, 240), ({"CVMFS_MAX_TTL": "1"}, 60)):
        with closing(_client(repository, server, **overrides)) as client:
            client.mount()
            assert seconds - 10 < client.next_refresh - client.started < seconds + 10


def test_metainfo_is_shown_when_the_manifest_is_confirmed(
    repository: ResignedRepository, server: Server
) -> None:
    with closing(_client(repository, server)) as client:
        revision = client.mount()
        assert revision.magic_xattr(revision.top, b"user.repo_metainfo") == b"manifest not available"
        client.refresh()
        value = revision.magic_xattr(revision.top, b"user.repo_metainfo")
        assert value is not None
        assert value.startswith(b"{")


def _refusal(repository: ResignedRepository, server: Server, **overrides: str) -> str:
    with (
        pytest.raises((ConfigurationError, TransferError, CacheError)) as caught,
        closing(_client(repository, server, **overrides)) as client,
    ):
        client.mount()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_missing_key(repository: ResignedRepository, server: Server) -> None:
    message = _refusal(repository, server, CVMFS_PUBLIC_KEY="/nowhere/k.pub")
    assert "cannot read the public key /nowhere/k.pub: No such file" in message
    empty = repository.directory / "empty.pub"
    empty.touch()
    assert f"{empty} has no valid public key" in _refusal(repository, server, CVMFS_PUBLIC_KEY=str(empty))


def test_server_that_cannot_be_reached(repository: ResignedRepository, server: Server) -> None:
    message = _refusal(repository, server, CVMFS_SERVER_URL="http://127.0.0.1:9/cvmfs/@fqrn@")
    assert "http://127.0.0.1:9/cvmfs/kitchen.test.org" in message
    assert "cannot be reached" in message
    message = _refusal(repository, server, CVMFS_SERVER_URL="http://no.such.host.invalid/x")
    assert "name does not resolve" in message


def test_wrong_repository_name(repository: ResignedRepository, server: Server) -> None:
    message = _refusal(repository, server, CVMFS_SERVER_URL=f"{server.url}/cvmfs/other.test.org")
    assert "no server has the repository kitchen.test.org" in message
    assert "check the repository name and CVMFS_SERVER_URL" in message


def test_cache_directory_that_cannot_be_used(repository: ResignedRepository, server: Server) -> None:
    file = repository.directory / "file"
    file.touch()
    message = _refusal(repository, server, CVMFS_CACHE_BASE=str(file))
    assert f"{file}/shared: Not a directory" in message


def test_repository_without_certificate_or_catalog(repository: ResignedRepository, server: Server) -> None:
    shutil.rmtree(repository.root / "data")
    message = _refusal(repository, server)
    assert "X does not exist at http://127.0.0.1" in message
