"""Against real servers on the loopback: a registry, and a host that it leads to and nobody should trust."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.errors import CredentialsError
from cvmfs_graphdriver.oci.registry.connection import Connection
from cvmfs_graphdriver.oci.registry.credentials import Credentials, DockerConfig, SingleCredentials
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings
from tests.support.misbehaving_server import Exchange, Script, run_server

_BASIC = "Basic " + base64.b64encode(b"ada:secret").decode()
_SCOPES = ("repository:a:pull",)


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport(TransportSettings(sleep=lambda _: None))
    yield transport
    transport.close()


def _connect(registry: Script, transport: Transport, tmp_path: Path) -> Connection:
    ada = SingleCredentials(registry.host, Credentials("ada", "secret"), DockerConfig(tmp_path / "none"))
    return Connection(registry.host, transport, ada)


def _ask(connection: Connection, path: str) -> bytes:
    reply = connection.request("GET", path, scopes=_SCOPES, expect={200}, what="the tags of a")
    return reply.body(100)


def _thief(scheme: str) -> Iterator[Script]:
    """A host that asks for credentials, and names itself as the token server."""

    def act(exchange: Exchange) -> None:
        if exchange.line.startswith("GET /token"):
            exchange.answer(200, b'{"token": "theirs"}')
            return
        host = exchange.header("Host")
        challenge = f'Bearer realm="http://{host}/token"' if scheme == "bearer" else 'Basic realm="x"'
        exchange.answer(401, WWW_Authenticate=challenge)

    with run_server(act) as script:
        yield script


@pytest.fixture(params=["bearer", "basic"])
def thief(request: pytest.FixtureRequest) -> Iterator[Script]:
    yield from _thief(request.param)


@pytest.mark.parametrize("challenge", ["none", "basic", "bearer"])
@pytest.mark.parametrize("what", ["the interface", "what is asked for", "an address that it gives"])
def test_a_host_that_a_registry_leads_to_gets_no_credentials(
    thief: Script, transport: Transport, tmp_path: Path, what: str, challenge: str
) -> None:
    def act(exchange: Exchange) -> None:
        if exchange.line.startswith("GET /token"):
            exchange.answer(200, b'{"token": "ours"}')
        elif what == "the interface" or (what == "what is asked for" and exchange.line != "GET /v2/"):
            exchange.answer(307, Location=f"http://{thief.host}{exchange.handler.path}")
        elif challenge == "none":
            exchange.answer(200)
        elif challenge == "basic":
            exchange.answer(401, WWW_Authenticate='Basic realm="x"')
        else:
            realm = f"http://{exchange.header('Host')}/token"
            exchange.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"')

    with run_server(act) as registry:
        connection = _connect(registry, transport, tmp_path)
        path = f"http://{thief.host}/v2/a" if what == "an address that it gives" else "a/tags/list"
        for _ in range(2):  # what was learnt from the first answer must not be used for the second request
            with pytest.raises(CredentialsError, match=f"redirects us to {thief.host} .*not sent to another"):
                _ask(connection, path)
    assert thief.lines
    assert not any(line.startswith("GET /token") for line in thief.lines)
    assert set(thief.authorizations) == {None}
    assert set(registry.authorizations) <= {None, _BASIC, "Bearer ours"}


def test_a_token_server_that_leads_elsewhere_gives_no_credentials_away(
    transport: Transport, tmp_path: Path
) -> None:
    with run_server(lambda e: e.answer(200, b'{"token": "t"}')) as elsewhere:

        def act(exchange: Exchange) -> None:
            if exchange.line.startswith("GET /token"):
                exchange.answer(307, Location=f"http://{elsewhere.host}/token")
            elif exchange.header("Authorization") == "Bearer t":
                exchange.answer(200, b"tags")
            else:
                realm = f"http://{exchange.header('Host')}/token"
                exchange.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"')

        with run_server(act) as registry:
            assert _ask(_connect(registry, transport, tmp_path), "a/tags/list") == b"tags"
    assert elsewhere.authorizations == [None]
    assert _BASIC in registry.authorizations


def test_a_registry_may_redirect_within_itself(transport: Transport, tmp_path: Path) -> None:
    def act(exchange: Exchange) -> None:
        if not exchange.handler.path.startswith("/moved/"):
            exchange.answer(307, Location=f"/moved{exchange.handler.path}")
        elif exchange.header("Authorization") == _BASIC:
            exchange.answer(200, b"tags")
        else:
            exchange.answer(401, WWW_Authenticate='Basic realm="x"')

    with run_server(act) as registry:
        assert _ask(_connect(registry, transport, tmp_path), "a/tags/list") == b"tags"
