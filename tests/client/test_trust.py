"""Whatever a server sends: refused with the object and the reason, and no wrong byte in the cache."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.status import status_of
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.errors import ClientError, RevisionError
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import TrustError
from tests.client.tree.test_revision import read
from tests.support.fixtures import Server, serve, unpack
from tests.support.resigned import ResignedRepository, signing_key

# Revisions of the fixture kitchen-sha1.
FIRST, BASE, V1, V2, V3 = (
    ("6f93ee93bd58dd5a4d52df7265a5324ee3a08dd9", 1),
    ("0fee6c1d58993dffee880a34a1f4bbc21090b104", 2),
    ("e2de24c5c7f1cc91950c63565aa4802c9e3ca219", 5),
    ("1f4b1cd42d18db87ae14900d0c80c02f020ba20a", 6),
    ("87474825befa042d6f55a5ea81510033c815cc9f", 7),
)


@pytest.fixture
def repository(tmp_path: Path) -> ResignedRepository:
    return ResignedRepository("kitchen-sha1", tmp_path / "repository")


@pytest.fixture
def server(repository: ResignedRepository) -> Iterator[Server]:
    with serve(repository.directory) as server:
        yield server


def _client(repository: ResignedRepository, server: Server, **overrides: str) -> Client:
    return Client(repository.unpacked.settings(server.url, repository.directory, **overrides))


def _read_everything(client: Client) -> None:
    """Mount, list every directory, read every file."""
    revision = client.mount()
    waiting = [revision.top]
    while waiting:
        for node in revision.children(waiting.pop()):
            if node.entry.is_directory:
                waiting.append(node)
            elif node.entry.is_regular:
                read(revision, node)


def _assert_cache_is_right(directory: Path, pristine: Path) -> None:
    """Every object in the cache is what the undamaged repository has under that name."""
    there = [path for path in (directory / "cache" / "shared").glob("??/*") if path.parent.name != "tx"]
    stored = {path.parent.name + path.name: path for path in pristine.glob("data/*/*")}
    for path in there:
        name = path.parent.name + path.name
        source = next(stored[name + suffix] for suffix in ("", *Suffix) if name + suffix in stored)
        data = source.read_bytes()
        assert path.read_bytes() in (data, decompress(data) if data[:1] == b"x" else data), name
    assert not list((directory / "cache" / "shared" / "txn").iterdir())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)


def _flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


OBJECTS = ["manifest", "whitelist", "certificate", "root catalog", "nested catalog", "file", "chunk"]


@cache
def _objects(fixture: str) -> dict[str, ObjectName]:
    """One object of each kind in a fixture."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        repository = unpack(fixture, directory / "repository")
        with (
            serve(repository.directory) as server,
            closing(Client(repository.settings(server.url, directory))) as client,
        ):
            revision = client.mount()
            assert revision.manifest is not None
            assert revision.manifest.certificate is not None
            nested = revision.top.mount.catalog.nested()[0]
            found: dict[str, ObjectName] = {
                "certificate": ObjectName(revision.manifest.certificate, Suffix.CERTIFICATE),
                "root catalog": ObjectName(revision.root, Suffix.CATALOG),
                "nested catalog": ObjectName(nested.digest, Suffix.CATALOG),
            }
            waiting = [revision.top]
            while waiting:
                for node in revision.children(waiting.pop()):
                    if node.entry.is_directory:
                        waiting.append(node)
                    elif node.entry.is_chunked:
                        chunk = node.mount.catalog.chunks(node.path)[1]
                        found.setdefault("chunk", ObjectName(chunk.digest, Suffix.PARTIAL))
                    elif node.entry.digest is not None and node.entry.size > 1000:
                        found.setdefault("file", ObjectName(node.entry.digest))
            return found


def _locate(name: str, fixture: str) -> tuple[Path, str]:
    """The file to damage, and the name that messages must have for it."""
    if name in {"manifest", "whitelist"}:
        return Path(".cvmfspublished" if name == "manifest" else ".cvmfswhitelist"), name
    found = _objects(fixture)[name]
    return Path(found.path), found.text


@pytest.mark.parametrize("damage", [_flip, _flip_last, _truncate, _empty, _extend])
@pytest.mark.parametrize("name", OBJECTS)
def test_damage_is_refused(name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    fixture = "lite-sha1-zlib" if name == "chunk" else "kitchen-sha1"
    path, shown = _locate(name, fixture)
    repository = unpack(fixture, tmp_path / "repository")
    pristine = tmp_path / "pristine"
    shutil.copytree(repository.root, pristine)
    damage(repository.root / path)
    with serve(repository.directory) as server:
        with closing(Client(repository.settings(server.url, tmp_path / "client"))) as client:
            with pytest.raises(CvmfsGraphdriverError) as caught:
                _read_everything(client)
            assert shown in str(caught.value)
            assert not isinstance(caught.value, ClientError)
            assert "\n" not in str(caught.value)
        _assert_cache_is_right(tmp_path / "client", pristine)
        # All is well again as soon as the server is.
        shutil.copyfile(pristine / path, repository.root / path)
        with closing(Client(repository.settings(server.url, tmp_path / "client"))) as client:
            _read_everything(client)
        _assert_cache_is_right(tmp_path / "client", pristine)


@pytest.mark.parametrize("name", OBJECTS)
def test_valid_other_one_in_its_place_is_refused(name: str, tmp_path: Path) -> None:
    fixture = "lite-sha1-zlib" if name == "chunk" else "kitchen-sha1"
    path, shown = _locate(name, fixture)
    repository = unpack(fixture, tmp_path / "repository")
    other = unpack("gc", tmp_path / "other")
    pristine = tmp_path / "pristine"
    shutil.copytree(repository.root, pristine)
    if name in {"manifest", "whitelist"}:
        substitute = other.root / path
    else:
        # Another object of the same kind, of this very repository where it has one.
        kind = path.name[-1] if path.name[-1].isupper() else ""
        where = other.root if kind == "X" else repository.root
        there = sorted((where / "data").glob(f"*/*{kind or '[0-9a-f]'}"))
        substitute = next(p for p in there if p != repository.root / path)
    shutil.copyfile(substitute, repository.root / path)
    with (
        serve(repository.directory) as server,
        closing(Client(repository.settings(server.url, tmp_path / "client"))) as client,
    ):
        with pytest.raises(CvmfsGraphdriverError) as caught:
            _read_everything(client)
        assert shown in str(caught.value)
    _assert_cache_is_right(tmp_path / "client", pristine)


def test_expired_whitelist(repository: ResignedRepository, server: Server) -> None:
    repository.whitelist(days=-1)
    with (
        closing(_client(repository, server)) as client,
        pytest.raises(TrustError, match="whitelist.*expired"),
    ):
        client.mount()


def test_whitelist_expires_by_the_clock(repository: ResignedRepository, server: Server) -> None:
    repository.whitelist(days=30)
    settings = repository.unpacked.settings(server.url, repository.directory)
    later = datetime.now(UTC) + timedelta(days=31)
    with closing(Client(settings, now=lambda: later)) as client, pytest.raises(TrustError, match="expired"):
        client.mount()


def test_the_end_of_a_whitelist_is_seen_coming(
    repository: ResignedRepository,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cvmfs_graphdriver.client.whitelist_watch._AGAIN", 0.0)
    now = [datetime.now(UTC)]

    def told() -> list[tuple[int, str]]:
        records = [(each.levelno, each.getMessage()) for each in caplog.records]
        caplog.clear()
        return [record for record in records if "whitelist" in record[1]]

    repository.whitelist(days=10)
    settings = repository.unpacked.settings(server.url, repository.directory)
    with closing(Client(settings, now=lambda: now[0])) as client:
        client.mount()
        expires = status_of(client, "/mnt").whitelist_expires
        assert abs(expires - (now[0] + timedelta(days=10)).timestamp()) < 10
        assert status_of(client, "/mnt").whitelist_problem == ""
        assert told() == []
        now[0] += timedelta(days=5)
        client.refresh()
        client.refresh()
        ((level, text),) = told()  # once a day
        assert level == logging.WARNING
        assert text.startswith(f"the whitelist of {repository.fqrn} expires on 20")
        assert status_of(client, "/mnt").whitelist_problem == text
        now[0] += timedelta(days=6)
        assert client.refresh() is None, "what is mounted stays"
        ((level, text),) = told()
        assert level == logging.ERROR
        assert "expired on 20" in text
        repository.whitelist(days=40)  # signed again, and nothing new is published
        client.refresh()
        assert told() == []
        status = status_of(client, "/mnt")
        assert status.whitelist_problem == ""
        assert status.whitelist_expires > expires
        gauge = f'whitelist_expires_timestamp_seconds{{repository="{repository.fqrn}"}} '
        assert gauge in metrics_text([status]).decode()


def test_wrong_keys(repository: ResignedRepository, server: Server) -> None:
    repository.whitelist(master=signing_key("another master"))
    with (
        closing(_client(repository, server)) as client,
        pytest.raises(TrustError, match="whitelist .* signed by none of the 1 public keys"),
    ):
        client.mount()
    repository.whitelist(fqrn="other.test.org")
    with (
        closing(_client(repository, server)) as client,
        pytest.raises(TrustError, match="another repository, 'other.test.org'"),
    ):
        client.mount()
    repository.whitelist()
    repository.publish(key=signing_key("another repository key"))
    with (
        closing(_client(repository, server)) as client,
        pytest.raises(TrustError, match="certificate .* is not on the whitelist"),
    ):
        client.mount()


def test_older_revision_is_never_mounted_again(repository: ResignedRepository, server: Server) -> None:
    repository.publish(*V2)
    with closing(_client(repository, server)) as client:
        assert client.mount().number == 6
    # Validly signed, but older: replayed.
    repository.publish(*V1, seconds=-10)
    with closing(_client(repository, server)) as client:
        assert client.mount().number == 6
        assert isinstance(client.offline_because, TrustError)
        assert "older than one seen before" in str(client.offline_because)
    # Validly signed, later, but a lower revision: a server with another history.
    repository.publish(*V1, seconds=20)
    with closing(_client(repository, server)) as client:
        assert client.mount().number == 6
        assert client.refresh() is None


def test_refresh_refuses_replays(repository: ResignedRepository, server: Server) -> None:
    repository.publish(*V2, seconds=10)
    with closing(_client(repository, server)) as client:
        revision = client.mount()
        repository.publish(*V1, seconds=-100)
        with pytest.raises(TrustError, match="older"):
            client.refresh()
        assert client.current is revision


def test_blacklisted_revision_and_certificate(repository: ResignedRepository, server: Server) -> None:
    blacklist = repository.directory / "etc" / "blacklist"
    with closing(_client(repository, server)) as client:
        client.mount()
        blacklist.write_text(f"<{repository.fqrn} 8\n")
        with pytest.raises(RevisionError, match="revision 7 .* is blacklisted"):
            client.refresh()
    with (
        closing(_client(repository, server)) as client,
        pytest.raises(CvmfsGraphdriverError, match="blacklisted"),
    ):
        client.mount()
    blacklist.write_text(repository.certificate.fingerprint().text + "\n")
    with closing(_client(repository, server)) as client:
        # What was proven before the certificate was blacklisted may still be mounted.
        client.mount()
        assert "blacklisted" in str(client.offline_because)


def test_second_server_is_asked_when_the_first_cannot_prove(
    repository: ResignedRepository, server: Server, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(repository.directory / "cvmfs", bad / "cvmfs")
    _flip(bad / "cvmfs" / repository.fqrn / ".cvmfswhitelist")
    with serve(bad) as first:
        urls = f"{first.url}/cvmfs/@fqrn@;{server.url}/cvmfs/@fqrn@"
        with closing(_client(repository, server, CVMFS_SERVER_URL=urls)) as client:
            assert client.mount().number == 7
            assert client.offline_because is None


def test_wrong_size_in_a_catalog_is_noticed(repository: ResignedRepository, server: Server) -> None:
    with closing(_client(repository, server)) as client:
        revision = client.mount()
        node = next(n for n in revision.children(revision.top) if n.entry.is_regular and n.entry.size)
        for size in (node.entry.size - 1, node.entry.size + 1):
            wrong = node._replace(entry=node.entry._replace(size=size))
            with pytest.raises(CvmfsGraphdriverError, match=str(node.entry.digest)):
                revision.open(wrong)
        assert node.entry.compression is Compression.ZLIB
        assert isinstance(node.entry.digest, Digest)
