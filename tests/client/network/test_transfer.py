"""Transfers over real sockets: what servers and proxies do wrong, and what is made of it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.counters import ClientCounters, Count
from cvmfs_graphdriver.client.errors import (
    CacheError,
    NotFoundError,
    TransferError,
    UnreachableError,
)
from cvmfs_graphdriver.client.network.network import Network, client_identifier
from cvmfs_graphdriver.client.network.transfer import Memory, Transfer
from cvmfs_graphdriver.repository.errors import DigestMismatchError, RepositoryError
from tests.support.fixtures import Server, serve

CONTENT = b"x" * 200_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "one"
    (root / "r").mkdir(parents=True)
    (root / "r" / "object").write_bytes(CONTENT)
    with serve(root) as server:
        yield server


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "two"
    (root / "r").mkdir(parents=True)
    (root / "r" / "object").write_bytes(CONTENT)
    with serve(root) as server:
        yield server


def _network(*servers: Server | str, **overrides: str) -> Network:
    urls = [f"{server.url}/r" if isinstance(server, Server) else server for server in servers]
    values = {
        "CVMFS_SERVER_URL": ";".join(urls),
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PUBLIC_KEY": "/k",
        "CVMFS_TIMEOUT": "1",
        "CVMFS_TIMEOUT_DIRECT": "1",
        "CVMFS_BACKOFF_INIT": "0.01",
        "CVMFS_BACKOFF_MAX": "0.02",
        **overrides,
    }
    return Network(load_settings("a.b", Path("/nowhere"), values).network, ClientCounters(), "me")


def _get(network: Network, path: str = "object") -> bytes:
    with closing(network):
        return network.transfer.get(path, 1_000_000)


def _status(number: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(number)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"error")
        return True

    return answer


def _reset(handler: BaseHTTPRequestHandler) -> bool:
    handler.close_connection = True
    handler.connection.close()
    return True


def _cut(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])
    handler.close_connection = True
    return True


def _hang(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])
    handler.wfile.flush()
    time.sleep(2.5)
    handler.close_connection = True
    return True


FAULTS: dict[str, Callable[[BaseHTTPRequestHandler], bool]] = {
    "404": _status(404),
    "500": _status(500),
    "403": _status(403),
    "301": _status(301, Location="http://127.0.0.1:1/"),
    "429": _status(429),
    "reset": _reset,
    "cut": _cut,
    "hang": _hang,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_another_server_helps(fault: str, server: Server, second: Server) -> None:
    server.faults["/r/object"] = FAULTS[fault]
    assert _get(_network(server, second, CVMFS_MAX_RETRIES="0")) == CONTENT
    assert second.requests["/r/object"] == 1


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("404", NotFoundError, "object does not exist at http://127"),
        ("500", UnreachableError, "answers with an error, status 500"),
        ("reset", UnreachableError, "breaks off"),
        ("cut", UnreachableError, "breaks off"),
        ("hang", UnreachableError, "too slow"),
    ],
)
def test_nobody_helps(fault: str, error: type[TransferError], message: str, server: Server) -> None:
    server.faults["/r/object"] = FAULTS[fault]
    with pytest.raises(error, match=message):
        _get(_network(server, CVMFS_MAX_RETRIES="0"))


def test_passing_faults_are_repeated(server: Server) -> None:
    def once(handler: BaseHTTPRequestHandler) -> bool:
        return server.requests["/r/object"] == 1 and _cut(handler)

    server.faults["/r/object"] = once
    network = _network(server, CVMFS_MAX_RETRIES="1")
    assert _get(network) == CONTENT
    assert server.requests["/r/object"] == 2
    counted = network.transfer._counters
    assert counted.failures()["host_short"] == 1
    assert counted[Count.DOWNLOADS] == 1
    assert counted[Count.BYTES_RECEIVED] == len(CONTENT)
    assert sum(counted.latencies) == 1


def test_redirects_are_followed_if_allowed(server: Server, second: Server) -> None:
    server.faults["/r/object"] = _status(302, Location=f"{second.url}/r/object")
    with pytest.raises(UnreachableError, match="302"):
        _get(_network(server))
    assert _get(_network(server, CVMFS_FOLLOW_REDIRECTS="yes")) == CONTENT
    server.faults["/r/object"] = _status(302, Location=f"{server.url}/r/object")
    with pytest.raises(UnreachableError):
        _get(_network(server, CVMFS_FOLLOW_REDIRECTS="yes"))
    server.faults["/r/object"] = _status(302, Location="file:///etc/passwd")
    with pytest.raises(UnreachableError):
        _get(_network(server, CVMFS_FOLLOW_REDIRECTS="yes"))


class _Choosy(Memory):
    """A sink that is content with the n-th answer."""

    def __init__(self, good: int) -> None:
        super().__init__(1_000_000)
        self.good = good
        self.begun = 0

    def begin(self) -> None:
        super().begin()
        self.begun += 1

    def finish(self) -> None:
        if self.begun < self.good:
            raise DigestMismatchError("wrong bytes")


def test_wrong_bytes_are_asked_for_again_past_all_caches(server: Server, second: Server) -> None:
    with closing(_network(server, second)) as network:
        network.transfer.fetch("object", _Choosy(2))
        assert [headers.get("Cache-Control") for headers in server.headers] == [None, "no-cache"]
        assert [headers.get("Pragma") for headers in server.headers] == [None, "no-cache"]
        network.transfer.fetch("object", _Choosy(3))
        assert second.requests["/r/object"] == 1
        with pytest.raises(DigestMismatchError, match="wrong bytes"):
            network.transfer.fetch("object", _Choosy(9))


def test_an_error_of_the_sink_itself_ends_the_transfer(server: Server, second: Server) -> None:
    class Full(Memory):
        def write(self, data: bytes) -> None:
            raise CacheError(f"no room for {len(data)} bytes: the disk is full")

    with closing(_network(server, second)) as network:
        with pytest.raises(CacheError, match="full"):
            network.transfer.fetch("object", Full(10))
        assert not second.requests
        # The connection is good for more.
        assert network.transfer.get("object", 1_000_000) == CONTENT


def test_nothing_bigger_than_expected_is_received(server: Server) -> None:
    with (
        closing(_network(server)) as network,
        pytest.raises(RepositoryError, match="exceeds the limit of 1000 bytes"),
    ):
        network.transfer.get("object", 1000)


def test_ranges(server: Server) -> None:
    (server.root / "r" / "digits").write_bytes(b"0123456789")
    with closing(_network(server)) as network:
        sink = Memory(100)
        network.transfer.fetch("digits", sink, span=(3, 6))
        assert sink.getvalue() == b"345"
        assert network.transfer.get("digits", 100) == b"0123456789"


def test_headers(server: Server) -> None:
    assert _get(_network(server)) == CONTENT
    headers = server.headers[-1]
    assert headers["User-Agent"].startswith("cvmfs graphdriver ")
    assert headers["User-Agent"].endswith(" me")
    assert "Pragma" not in headers
    overrides = {
        "CVMFS_SEND_INFO_HEADER": "yes",
        "CVMFS_HTTP_TRACING": "on",
        "CVMFS_HTTP_TRACING_HEADERS": "X-Site: CERN|X-Job:7",
    }
    assert _get(_network(server, **overrides)) == CONTENT
    headers = server.headers[-1]
    assert headers["cvmfs-info"] == "object"
    assert headers["X-CVMFS-PID"].isdigit()
    assert (headers["X-Site"], headers["X-Job"]) == ("CERN", "7")


def test_connections_are_kept_alive(server: Server) -> None:
    with closing(_network(server)) as network:
        for _ in range(20):
            network.transfer.get("object", 1_000_000)
        assert len(server.connections) == 1


def test_sixteen_at_once_and_no_more(server: Server) -> None:
    most = 0
    lock = threading.Lock()
    now: list[int] = []

    def count(_: BaseHTTPRequestHandler) -> bool:
        nonlocal most
        with lock:
            now.append(1)
            most = max(most, len(now))
        time.sleep(0.02)
        with lock:
            now.pop()
        return False

    server.faults["/r/object"] = count
    with closing(_network(server)) as network:
        threads = [
            threading.Thread(target=network.transfer.get, args=("object", 1_000_000)) for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 2 <= most <= 16
    assert server.requests["/r/object"] == 40


def test_file_urls(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(CONTENT)
    assert _get(_network(f"file://{tmp_path}")) == CONTENT
    with pytest.raises(NotFoundError, match="does not exist"):
        _get(_network(f"file://{tmp_path}"), "absent")


def test_closing_ends_pauses() -> None:
    network = _network("http://127.0.0.1:9", CVMFS_BACKOFF_INIT="1000", CVMFS_BACKOFF_MAX="1000")
    failures: list[TransferError] = []

    def fetch(transfer: Transfer) -> None:
        try:
            transfer.get("object", 10)
        except TransferError as error:
            failures.append(error)

    thread = threading.Thread(target=fetch, args=(network.transfer,))
    thread.start()
    time.sleep(0.1)
    network.close()
    thread.join(5)
    assert not thread.is_alive()
    assert "being closed" in str(failures[0])


# Proxies


@contextmanager
def _dead_port() -> Iterator[str]:
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_proxies_are_used_and_left(server: Server, second: Server) -> None:
    # The test server takes requests for whole URLs, too: as a proxy for itself.
    direct = f"http://127.0.0.1:{server.server_address[1]}"
    with _dead_port() as dead:
        network = _network(server, CVMFS_HTTP_PROXY=f"{dead};{direct};DIRECT", CVMFS_MAX_RETRIES="0")
        with closing(network):
            assert network.transfer.get("object", 1_000_000) == CONTENT
            assert network.transfer.failover.current_group == 1
            assert network.transfer._counters.failures()["proxy_connection"] == 1
        network = _network(server, CVMFS_HTTP_PROXY=f"{dead};http://no.such.name.invalid:1")
        with pytest.raises(UnreachableError, match="through http://no.such.name.invalid:1: the proxy's name"):
            _get(network)
        network = _network(server, CVMFS_HTTP_PROXY=dead, CVMFS_FALLBACK_PROXY=direct)
        assert _get(network) == CONTENT


def test_errors_of_the_proxy_itself_are_the_proxys(server: Server, second: Server) -> None:
    proxy = second.url
    second.faults["*"] = _status(503, X_Squid_Error="ERR_CONNECT_FAIL 111")
    network = _network(server, CVMFS_HTTP_PROXY=f"{proxy};DIRECT", CVMFS_MAX_RETRIES="0")
    with closing(network):
        assert network.transfer.get("object", 1_000_000) == CONTENT
        assert network.transfer._counters.failures()["proxy_http"] == 1
    second.faults["*"] = _status(404, Proxy_Status="squid; error=dns_error")
    network = _network(server, CVMFS_HTTP_PROXY=f"{proxy};DIRECT", CVMFS_MAX_RETRIES="0")
    assert _get(network) == CONTENT


def test_proxies_are_replaced_while_running(server: Server) -> None:
    with closing(_network(server)) as network:
        network.set_proxies(server.url, "http://127.0.0.1:9")
        assert [group[0].url for group in network.transfer.failover.groups.groups] == [
            server.url,
            "http://127.0.0.1:9",
        ]
        assert network.transfer.get("object", 1_000_000) == CONTENT


# Distance


def test_servers_sort_themselves_by_distance(server: Server, second: Server) -> None:
    hosts = (f"{server.url}/r", f"{second.url}/r")
    for one in (server, second):
        path = "/r/api/v1.0/geo/me/127.0.0.1,127.0.0.1"
        one.faults[path] = _status(200)
        (one.root / "r" / "api/v1.0/geo/me").mkdir(parents=True)
        (one.root / path.lstrip("/")).write_text("2,1\n")
    with closing(_network(server, second)) as network:
        assert not network.sort_by_distance()
        assert network.transfer.failover.hosts == hosts
        second.faults.clear()
        assert network.sort_by_distance()
        assert network.transfer.failover.hosts == hosts[::-1]


def test_distance_is_measured_from_the_proxy(server: Server) -> None:
    spare = "DIRECT;f.invalid:1|h.invalid:1;g.invalid:1"
    with closing(_network(server, CVMFS_HTTP_PROXY=server.url, CVMFS_FALLBACK_PROXY=spare)) as network:
        path = "/r/api/v1.0/geo/127.0.0.1/127.0.0.1,+PXYSEP+,f.invalid,g.invalid"
        (server.root / path.lstrip("/")).parent.mkdir(parents=True)
        (server.root / path.lstrip("/")).write_text("1,4,2,3\n")
        assert network.sort_by_distance()
        groups = network.transfer.failover.groups
        assert [proxy.url for group in groups.groups for proxy in group] == [
            *(server.url, "http://g.invalid:1", "http://f.invalid:1", "http://h.invalid:1"),
        ]
        assert groups.fallback == 1
    with closing(_network(server, CVMFS_PROXY_TEMPLATE="site-7")) as network:
        assert not network.sort_by_distance()
        assert server.requests["/r/api/v1.0/geo/site-7/127.0.0.1"] == 1


def test_identifier_stays(tmp_path: Path) -> None:
    first = client_identifier(tmp_path)
    assert client_identifier(tmp_path) == first
    (tmp_path / "uuid").write_text("nonsense\n")
    assert len(client_identifier(tmp_path)) == 36
    with pytest.raises(CacheError):
        client_identifier(tmp_path / "absent")


def test_transfers_that_queue_do_not_each_try_a_proxy_that_others_have_left(server: Server) -> None:
    """It listens and never answers; readers queue for connections, and one after the other would wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        proxies = f"http://127.0.0.1:{silent.getsockname()[1]};{server.url}"
        network = _network("http://repository.example.org/r", CVMFS_HTTP_PROXY=proxies, CVMFS_MAX_RETRIES="0")
        server.faults["http://repository.example.org/r/object"] = lambda handler: (
            handler.reply(CONTENT) is None  # type: ignore[attr-defined]
        )
        assert network.transfer.reserve(), "most connections are used for fetching ahead"
        with closing(network), ThreadPoolExecutor(32) as readers:
            started = time.monotonic()
            found = readers.map(lambda _: network.transfer.get("object", 1_000_000), range(32))
            assert set(found) == {CONTENT}
        assert time.monotonic() - started < 3, "one second for the four that began at first"
