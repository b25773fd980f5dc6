"""Two real squids and two real nginx servers: what dies is left, what is back is used again."""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from tests.client.tree.test_revision import read, walk
from tests.support.daemons import Daemon, nginx, open_to_daemons, squid
from tests.support.fixtures import UnpackedRepository, unpack

if TYPE_CHECKING:
    from cvmfs_graphdriver.client.tree.revision import Node

pytestmark = pytest.mark.skipif(
    not (shutil.which("squid") and shutil.which("nginx")), reason="squid and nginx are not installed"
)


class Site:
    """Two proxies, two servers, and a client that reads the whole tree again and again, always cold."""

    def __init__(self, repository: UnpackedRepository, directory: Path, parts: tuple[Daemon, ...]) -> None:
        self.repository = repository
        self.directory = directory
        self.proxies = parts[:2]
        self.servers = parts[2:]
        self.expected: dict[bytes, str] = {}
        self._files: dict[Client, list[Node]] = {}

    def client(self, proxies: str = "{0};{1}", **overrides: str) -> Client:
        urls = ";".join(f"{server.url}/cvmfs/@fqrn@" for server in self.servers)
        values = {
            "CVMFS_SERVER_URL": urls,
            "CVMFS_HTTP_PROXY": proxies.format(*(proxy.url for proxy in self.proxies)),
            "CVMFS_TIMEOUT": "1",
            "CVMFS_TIMEOUT_DIRECT": "1",
            "CVMFS_BACKOFF_INIT": "0.1",
            "CVMFS_BACKOFF_MAX": "0.2",
            "CVMFS_PROXY_RESET_AFTER": "1",
            "CVMFS_HOST_RESET_AFTER": "1",
            **overrides,
        }
        return Client(self.repository.settings(self.servers[0].url, self.directory, **values))

    def read_tree(self, client: Client) -> tuple[int, list[CvmfsGraphdriverError]]:
        """Read every file, nothing from the cache; how many were right, and the errors of the others."""
        revision = client.current or client.mount()
        files = self._files.get(client)
        if files is None:
            files = [node for node in walk(revision, revision.top) if node.entry.is_regular]
            self._files[client] = files
        for shard in (self.directory / "cache" / "shared").glob("[0-9a-f][0-9a-f]"):
            shutil.rmtree(shard)
        right = 0
        errors = []
        for node in files:
            try:
                digest = hashlib.sha1(read(revision, node)).hexdigest()
            except CvmfsGraphdriverError as error:
                errors.append(error)
                continue
            assert self.expected.setdefault(node.path, digest) == digest
            right += 1
        return right, errors


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[UnpackedRepository, tuple[Daemon, ...]]]:
    """The daemons, which all tests of this module kill and start again; squid and nginx are other users."""
    directory = tmp_path_factory.mktemp("site")
    repository = unpack("lite-sha1-zlib", directory / "repository")
    shutil.copytree(repository.directory, directory / "second")
    open_to_daemons(directory)
    with (
        squid(directory / "squid1") as one,
        squid(directory / "squid2") as two,
        nginx(directory / "nginx1", repository.directory) as three,
        nginx(directory / "nginx2", directory / "second") as four,
    ):
        yield repository, (one, two, three, four)


@pytest.fixture
def site(parts: tuple[UnpackedRepository, tuple[Daemon, ...]], tmp_path: Path) -> Site:
    site = Site(parts[0], tmp_path, parts[1])
    with closing(site.client()) as client:
        right, errors = site.read_tree(client)
    assert right == len(site.expected) > 10
    assert not errors
    return site


def _during(site: Site, client: Client, fault: Callable[[], None], back: Callable[[], None]) -> None:
    """Read while ``fault`` happens, afterwards, and when all is well ``back``: nothing may fail."""
    site.read_tree(client)
    timer = threading.Timer(0.05, fault)
    timer.start()
    try:
        for _ in range(2):
            right, errors = site.read_tree(client)
            assert not errors
            assert right == len(site.expected)
        timer.join()
        right, errors = site.read_tree(client)
        assert not errors
    finally:
        timer.join()
        back()
    time.sleep(1.1)
    right, errors = site.read_tree(client)
    assert (right, errors) == (len(site.expected), [])


def test_a_proxy_dies(site: Site) -> None:
    with closing(site.client("{0};{1}")) as client:
        _during(site, client, site.proxies[0].kill, site.proxies[0].start)
        assert client.transfer.failover.current_group == 0
        assert sum(client.counters.failures().values()) >= 1


def test_a_proxy_hangs(site: Site) -> None:
    with closing(site.client("{0};{1}", CVMFS_PROXY_RESET_AFTER="60")) as client:
        _during(site, client, site.proxies[0].freeze, site.proxies[0].thaw)
        assert client.transfer.failover.current_group == 1
        assert client.counters.failures()["proxy_too_slow"] >= 1


def test_all_proxies_of_a_group_die(site: Site) -> None:
    def kill() -> None:
        for proxy in site.proxies:
            proxy.kill()

    def start() -> None:
        for proxy in site.proxies:
            proxy.start()

    with closing(site.client("{0}|{1};DIRECT")) as client:
        _during(site, client, kill, start)


def test_the_first_server_dies(site: Site) -> None:
    with closing(site.client()) as client:
        _during(site, client, site.servers[0].kill, site.servers[0].start)


def test_the_first_server_hangs(site: Site) -> None:
    with closing(site.client("DIRECT", CVMFS_HOST_RESET_AFTER="60")) as client:
        _during(site, client, site.servers[0].freeze, site.servers[0].thaw)
        assert client.transfer.failover.current_host == 1


@pytest.mark.parametrize("fault", ["404", "garbage", "right length of wrong bytes", "empty"])
def test_the_first_server_has_lost_its_objects(fault: str, site: Site) -> None:
    root = site.repository.root / "data"

    def damage() -> None:
        for path in root.glob("*/*"):
            data = path.read_bytes()
            if fault == "404":
                path.unlink()
            elif fault == "garbage":
                path.write_bytes(b"<html>this is no object</html>" * 50)
            elif fault == "empty":
                path.write_bytes(b"")
            else:
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def repair() -> None:
        shutil.rmtree(root)
        original = site.repository.directory.parent / "second"
        shutil.copytree(original / root.relative_to(site.repository.directory), root)

    with closing(site.client()) as client:
        client.mount()
        damage()
        _during(site, client, lambda: None, repair)


def test_everything_is_down_for_a_while(site: Site) -> None:
    with closing(site.client("{0}|{1}")) as client:
        site.read_tree(client)
        for daemon in (*site.proxies, *site.servers):
            daemon.kill()
        started = time.monotonic()
        right, errors = site.read_tree(client)
        assert right == 0
        assert len(errors) == len(site.expected)
        assert (time.monotonic() - started) / len(errors) < 2, "errors come within the configured time"
        for daemon in (*site.proxies, *site.servers):
            daemon.start()
        time.sleep(1.1)
        right, errors = site.read_tree(client)
        assert (right, errors) == (len(site.expected), [])


def test_load_is_shared_by_digest(site: Site) -> None:
    with closing(site.client("{0}|{1}", CVMFS_PROXY_SHARD="yes")) as client:
        _during(site, client, site.proxies[1].kill, site.proxies[1].start)
