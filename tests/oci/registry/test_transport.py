from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.errors import RegistryReplyError, RegistryUnreachableError
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings, is_loopback
from demo.daemons import free_port
from tests.support.misbehaving_server import Exchange, run_server
from tests.support.registry import Authority, run_registry


class _Clock:
    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


@contextmanager
def _transport(clock: _Clock | None = None, **settings: object) -> Iterator[Transport]:
    transport = Transport(TransportSettings(sleep=clock or _Clock(), **settings))  # type: ignore[arg-type]
    try:
        yield transport
    finally:
        transport.close()


def test_what_passes_is_repeated_with_growing_pauses() -> None:
    answers = iter([503, 500, 502, 200])
    clock = _Clock()
    with run_server(lambda e: e.answer(next(answers), b"done")) as script, _transport(clock) as transport:
        reply = transport.request("GET", f"http://{script.host}/x", {})
        assert reply.body(100) == b"done"
    assert len(script.lines) == 4
    first, second, third = clock.pauses
    assert first < second < third
    assert 0.1 < first < 0.3


def test_a_server_says_how_long_to_wait() -> None:
    answers = iter([(429, "7"), (429, "99999"), (200, "")])
    clock = _Clock()

    def act(exchange: Exchange) -> None:
        status, wait = next(answers)
        exchange.answer(status, Retry_After=wait)

    with run_server(act) as script, _transport(clock) as transport:
        assert transport.request("GET", f"http://{script.host}/x", {}).status == 200
    assert clock.pauses == [7, 30]


def test_after_the_last_attempt_the_answer_stands() -> None:
    with run_server(lambda e: e.answer(503)) as script, _transport(attempts=3) as transport:
        reply = transport.request("GET", f"http://{script.host}/x", {})
        assert (reply.status, reply.body(10)) == (503, b"")
    assert len(script.lines) == 3


def test_what_does_not_pass_is_not_repeated() -> None:
    with run_server(lambda e: e.answer(404)) as script, _transport() as transport:
        assert transport.request("GET", f"http://{script.host}/x", {}).status == 404
    assert len(script.lines) == 1


def test_nobody_there() -> None:
    host = f"127.0.0.1:{free_port()}"
    clock = _Clock()
    with (
        _transport(clock, attempts=3) as transport,
        pytest.raises(RegistryUnreachableError, match=rf"cannot reach {host}: .*refused; check"),
    ):
        transport.request("GET", f"http://{host}/x?signature=secret", {})
    assert len(clock.pauses) == 2


def test_an_unknown_name_is_said_to_be() -> None:
    with (
        _transport(attempts=1) as transport,
        pytest.raises(RegistryUnreachableError, match="cannot reach no-such-host.invalid"),
    ):
        transport.request("GET", "https://no-such-host.invalid/v2/", {})


def test_a_server_that_hangs_is_left() -> None:
    import threading

    release = threading.Event()

    def hang(exchange: Exchange) -> None:
        release.wait(10)
        exchange.answer(200)

    with run_server(hang) as script, _transport(attempts=1, read_seconds=0.2) as transport:
        with pytest.raises(RegistryUnreachableError, match="timed out"):
            transport.request("GET", f"http://{script.host}/x", {})
        release.set()


def test_credentials_stay_with_their_origin() -> None:
    with run_server(lambda e: e.answer(200, b"blob")) as storage:

        def act(exchange: Exchange) -> None:
            if exchange.line == "GET /x":
                exchange.answer(307, Location="/y")
            else:
                exchange.answer(307, Location=f"http://{storage.host}/signed?key=1")

        with run_server(act) as registry, _transport() as transport:
            reply = transport.request("GET", f"http://{registry.host}/x", {"Authorization": "Bearer secret"})
            assert reply.body(100) == b"blob"
    assert registry.authorizations == ["Bearer secret", "Bearer secret"]
    assert storage.authorizations == [None]


def test_other_headers_follow_a_redirect() -> None:
    seen = []

    def act(exchange: Exchange) -> None:
        seen.append(exchange.header("Range"))
        exchange.answer(302, Location="/y") if exchange.line == "GET /x" else exchange.answer(200)

    with run_server(act) as script, _transport() as transport:
        transport.request("GET", f"http://{script.host}/x", {"Range": "bytes=5-"}).close()
    assert seen == ["bytes=5-"] * 2


def test_redirects_in_circles_end() -> None:
    with (
        run_server(lambda e: e.answer(302, Location="/x")) as script,
        _transport() as transport,
        pytest.raises(RegistryReplyError, match="redirects more than 5 times"),
    ):
        transport.request("GET", f"http://{script.host}/x", {})
    assert len(script.lines) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/x", "gopher://x"])
def test_redirects_lead_to_web_servers_only(location: str) -> None:
    with (
        run_server(lambda e: e.answer(302, Location=location)) as script,
        _transport() as transport,
        pytest.raises(RegistryReplyError, match="not an HTTP address"),
    ):
        transport.request("GET", f"http://{script.host}/x", {})


@pytest.mark.parametrize("location", ["http://", "http://[::1", "http://a:port/"])
def test_a_redirect_to_nonsense_is_an_error(location: str) -> None:
    with (
        run_server(lambda e: e.answer(302, Location=location)) as script,
        _transport(attempts=1) as transport,
        pytest.raises((RegistryReplyError, RegistryUnreachableError)),
    ):
        transport.request("GET", f"http://{script.host}/x", {})


def test_a_body_is_bounded() -> None:
    with run_server(lambda e: e.answer(200, bytes(5000))) as script, _transport() as transport:
        reply = transport.request("GET", f"http://{script.host}/x?q=secret", {})
        with pytest.raises(RegistryReplyError, match="more than 4999 bytes") as caught:
            reply.body(4999)
        assert "secret" not in str(caught.value)


def test_a_body_that_breaks_off_is_an_error() -> None:
    with run_server(lambda e: e.answer(200, b"abc", length=9)) as script, _transport() as transport:
        reply = transport.request("GET", f"http://{script.host}/x", {})
        with pytest.raises(RegistryUnreachableError, match="broke off"):
            reply.body(100)


def test_certificates_are_checked(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    with run_registry(tmp_path / "registry", tls=authority) as registry:
        url = f"https://{registry.host}/v2/"
        clock = _Clock()
        with _transport(clock) as transport, pytest.raises(RegistryUnreachableError, match="--ca-file"):
            transport.request("GET", url, {})
        assert clock.pauses == []
        with _transport(ca_file=authority.certificate_file) as transport:
            assert transport.request("GET", url, {}).body(10) == b"{}"
        with _transport(insecure_hosts=frozenset({registry.host})) as transport:
            assert transport.request("GET", url, {}).body(10) == b"{}"


def test_a_file_of_authorities_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnreachableError, match="nowhere"):
        Transport(TransportSettings(ca_file=tmp_path / "nowhere"))
    (tmp_path / "bad").write_text("no certificate")
    with pytest.raises(RegistryUnreachableError, match="bad"):
        Transport(TransportSettings(ca_file=tmp_path / "bad"))


def test_a_proxy_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        run_server(lambda e: e.answer(200, b"by proxy")) as proxy,
        run_server(lambda e: e.answer(200)) as here,
    ):
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        monkeypatch.delenv("no_proxy", raising=False)
        with _transport() as transport:
            assert transport.request("GET", "http://registry.invalid/x", {}).body(10) == b"by proxy"
            transport.request("GET", f"http://{here.host}/y", {}).body(10)
    assert proxy.lines == ["GET http://registry.invalid/x"]
    assert here.lines == ["GET /y"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("10.0.0.1", False),
        ("registry.org", False),
        ("localhost.evil.org", False),
        ("127.0.0.1.evil.org", False),
    ],
)
def test_this_machine_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
