"""A registry at a public address that leads to services of this machine: they are asked for nothing."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvmfs_graphdriver.oci.errors import RegistryReplyError
from cvmfs_graphdriver.oci.registry import reach
from cvmfs_graphdriver.oci.registry.credentials import DockerConfig
from cvmfs_graphdriver.oci.registry.reach import check_lead
from cvmfs_graphdriver.oci.registry.registry import Registry
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings
from tests.support.misbehaving_server import Exchange, Script, run_server

PUBLIC, PRIVATE, LOOPBACK = "93.184.215.14", "10.1.2.3", "127.0.0.1"
NAMES = {
    "localhost": [PUBLIC],  # as a registry elsewhere
    "public.example": [PUBLIC, "2606:2800:21f:cb07::1"],
    "private.example": [PRIVATE],
    "both.example": [PUBLIC, LOOPBACK],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: None, **options: int) -> list[tuple[object, ...]]:
        if host not in NAMES:
            return [*socket.getaddrinfo(host, port, **options)]
        return [(0, 0, 0, "", (address, 0)) for address in NAMES[host]]

    fake = SimpleNamespace(getaddrinfo=resolve, SOCK_STREAM=socket.SOCK_STREAM)
    monkeypatch.setattr(reach, "socket", fake)


@pytest.fixture
def service() -> Iterator[Script]:
    """Something on this machine that is not for strangers."""
    with run_server(lambda exchange: exchange.answer(200, b'{"token": "t"}')) as script:
        yield script


def _redirect(exchange: Exchange, service: str) -> None:
    exchange.answer(307, Location=f"http://{service}/secret")


def _realm(exchange: Exchange, service: str) -> None:
    exchange.answer(401, WWW_Authenticate=f'Bearer realm="http://{service}/secret"')


def _page(exchange: Exchange, service: str) -> None:
    exchange.answer(200, b'{"tags": []}', Link=f'<http://{service}/secret>; rel="next"')


def _upload(exchange: Exchange, service: str) -> None:
    if exchange.line.startswith("HEAD"):
        exchange.answer(404)
    else:
        exchange.answer(202, Location=f"http://{service}/secret")


def _use(registry: Registry, act: Callable[[Exchange, str], None]) -> None:
    if act is _upload:
        registry.upload_blob("a", b"data")
    else:
        registry.tags("a")


@pytest.mark.parametrize("act", [_redirect, _realm, _page, _upload])
def test_a_public_registry_does_not_lead_to_this_machine(
    service: Script, tmp_path: Path, act: Callable[[Exchange, str], None]
) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.line == "GET /v2/" and act is not _realm:
            exchange.answer(200)
        else:
            act(exchange, service.host)

    with run_server(answer) as script:
        host = script.host.replace(LOOPBACK, "localhost")
        transport = Transport(TransportSettings(sleep=lambda _: None))
        registry = Registry(host, transport, DockerConfig(tmp_path / "none"))
        with pytest.raises(
            RegistryReplyError, match=r"localhost leads to 127\.0\.0\.1, which is this machine"
        ):
            _use(registry, act)
        transport.close()
    assert service.lines == []


def test_an_option_permits_it(service: Script) -> None:
    with run_server(lambda exchange: _redirect(exchange, service.host)) as script:
        transport = Transport(TransportSettings(allow_private_redirects=True))
        reply = transport.request("GET", f"http://{script.host.replace(LOOPBACK, 'localhost')}/", {})
        assert reply.status == 200
        reply.close()
        transport.close()


@pytest.mark.parametrize(
    ("start", "target"),
    [
        (PUBLIC, "public.example"),
        (PRIVATE, "public.example"),
        (PRIVATE, "192.168.1.1"),
        (LOOPBACK, PRIVATE),
        (LOOPBACK, "[::1]"),
        (LOOPBACK, "127.0.0.2:5000"),
        ("private.example", "private.example:444"),
    ],
)
def test_leads_that_are_followed(start: str, target: str) -> None:
    check_lead(f"https://{start}/v2/", f"https://{target}/x")


@pytest.mark.parametrize(
    "target",
    [
        *("localhost.localdomain@127.0.0.1", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::]"),
        *("[::ffff:127.0.0.1]", "[2002:7f00:1::]", "169.254.169.254", "[fe80::1]", "both.example"),
    ],
)
@pytest.mark.parametrize("start", ["public.example", "private.example", "both.example"])
def test_leads_to_this_machine_are_refused(start: str, target: str) -> None:
    if start == "both.example" and target == start:
        return
    with pytest.raises(RegistryReplyError, match="which is (this machine|a link-local address)"):
        check_lead(f"https://{start}/v2/", f"http://{target}/x")


@pytest.mark.parametrize("target", [PRIVATE, "private.example", "100.64.0.1", "[fd00::1]"])
def test_leads_from_public_to_private_addresses_are_refused(target: str) -> None:
    with pytest.raises(RegistryReplyError, match="which is a private address"):
        check_lead("https://public.example/v2/", f"http://{target}/x")


@pytest.mark.parametrize("url", ["http:///x", r"http://127.0.0.1\@public.example/x", "x", "http://[::1/x"])
def test_addresses_that_can_be_read_in_two_ways_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ambiguous|IPv6|parse"):
        check_lead("https://public.example/v2/", url)
