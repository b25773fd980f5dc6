import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest

from cvmfs_graphdriver.oci.errors import CredentialsError, RegistryReplyError
from cvmfs_graphdriver.oci.registry.auth import Authorizer, TokenAnswer
from cvmfs_graphdriver.oci.registry.credentials import Credentials

_BEARER = 'Bearer realm="https://auth.org/token?a=b",service="r s"'
_PULL = ("repository:a/b:pull",)
_ADA = Credentials("ada", "pass:word")


@dataclass
class _TokenServer:
    status: int = 200
    body: bytes | None = None
    asked: list[tuple[str, Mapping[str, str], bytes | None]] = field(default_factory=list)
    now: float = 1000.0

    def __call__(self, url: str, headers: Mapping[str, str], form: bytes | None) -> TokenAnswer:
        self.asked.append((url, headers, form))
        default = json.dumps({"token": f"t{len(self.asked)}", "expires_in": 300}).encode()
        return TokenAnswer(self.status, default if self.body is None else self.body)


def _authorizer(
    server: _TokenServer, credentials: Credentials | None = None, *, plain_http: bool = False
) -> Authorizer:
    return Authorizer("r.org", credentials, server, lambda: server.now, plain_http=plain_http)


def test_nothing_is_sent_before_a_challenge() -> None:
    assert _authorizer(_TokenServer(), _ADA).header(_PULL) is None


def test_basic_sends_the_pair() -> None:
    authorizer = _authorizer(_TokenServer(), _ADA)
    assert authorizer.challenged('Basic realm="x"', (), sent=None)
    assert authorizer.header(_PULL) == "Basic YWRhOnBhc3M6d29yZA=="
    assert not authorizer.challenged('Basic realm="x"', (), sent="Basic YWRhOnBhc3M6d29yZA==")


def test_basic_without_credentials_is_hopeless() -> None:
    assert not _authorizer(_TokenServer()).challenged('Basic realm="x"', (), sent=None)


def test_an_unknown_scheme_is_hopeless() -> None:
    authorizer = _authorizer(_TokenServer(), _ADA)
    assert not authorizer.challenged("Negotiate", (), sent=None)
    assert authorizer.header(_PULL) is None


def test_an_anonymous_token_is_asked_for_once() -> None:
    server = _TokenServer()
    authorizer = _authorizer(server)
    assert authorizer.challenged(_BEARER, (), sent=None)
    assert [authorizer.header(_PULL) for _ in range(3)] == ["Bearer t1"] * 3
    ((url, headers, form),) = server.asked
    assert url == "https://auth.org/token?a=b&service=r+s&scope=repository%3Aa%2Fb%3Apull"
    assert headers == {}
    assert form is None


def test_every_scope_has_its_token() -> None:
    server = _TokenServer()
    authorizer = _authorizer(server, _ADA)
    authorizer.challenged(_BEARER, (), sent=None)
    assert authorizer.header(_PULL) == "Bearer t1"
    assert authorizer.header(("repository:a/b:pull,push",)) == "Bearer t2"
    assert authorizer.header(_PULL) == "Bearer t1"
    assert server.asked[0][1] == {"Authorization": "Basic YWRhOnBhc3M6d29yZA=="}


def test_a_token_is_renewed_before_it_expires() -> None:
    server = _TokenServer()
    authorizer = _authorizer(server)
    authorizer.challenged(_BEARER, (), sent=None)
    assert authorizer.header(_PULL) == "Bearer t1"
    server.now += 280
    assert authorizer.header(_PULL) == "Bearer t1"
    server.now += 15
    assert authorizer.header(_PULL) == "Bearer t2"


def test_a_token_that_is_refused_is_replaced() -> None:
    server = _TokenServer()
    authorizer = _authorizer(server)
    authorizer.challenged(_BEARER, (), sent=None)
    assert authorizer.header(_PULL) == "Bearer t1"
    assert authorizer.challenged(_BEARER, _PULL, sent="Bearer t1")
    assert authorizer.header(_PULL) == "Bearer t2"
    # Another thread's late complaint about the old one does no harm to the new one.
    assert authorizer.challenged(_BEARER, _PULL, sent="Bearer t1")
    assert authorizer.header(_PULL) == "Bearer t2"


def test_an_identity_token_is_posted_not_put_into_an_address() -> None:
    server = _TokenServer(body=b'{"access_token": "x"}')
    authorizer = _authorizer(server, Credentials(identity_token="secret"))
    authorizer.challenged(_BEARER, (), sent=None)
    assert authorizer.header(_PULL) == "Bearer x"
    ((url, headers, form),) = server.asked
    assert url == "https://auth.org/token?a=b"
    assert "Authorization" not in headers
    assert parse_qs((form or b"").decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["cvmfs-graphdriver"],
        "service": ["r s"],
        "scope": list(_PULL),
        "refresh_token": ["secret"],
    }


def test_a_registry_token_is_sent_as_it_is() -> None:
    authorizer = _authorizer(_TokenServer(), Credentials(registry_token="r"))
    assert authorizer.header(_PULL) == "Bearer r"
    assert not authorizer.challenged(_BEARER, _PULL, sent="Bearer r")


@pytest.mark.parametrize("realm", ["http://auth.org/token", "ftp://auth.org", "", "auth.org"])
def test_credentials_never_go_over_an_unprotected_connection(realm: str) -> None:
    server = _TokenServer()
    authorizer = _authorizer(server, _ADA)
    authorizer.challenged(f'Bearer realm="{realm}"', (), sent=None)
    with pytest.raises(RegistryReplyError, match="never sent without TLS"):
        authorizer.header(_PULL)
    assert server.asked == []


def test_a_registry_without_tls_may_have_such_a_token_server() -> None:
    authorizer = _authorizer(_TokenServer(), _ADA, plain_http=True)
    authorizer.challenged('Bearer realm="http://127.0.0.1/token"', (), sent=None)
    assert authorizer.header(_PULL) == "Bearer t1"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_said_to_be(status: int) -> None:
    authorizer = _authorizer(_TokenServer(status), _ADA)
    authorizer.challenged(_BEARER, (), sent=None)
    with pytest.raises(CredentialsError, match="refuses the credentials.*docker login") as caught:
        authorizer.header(_PULL)
    assert "pass:word" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (200, b""),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"token": ""}'),
        (200, b'{"token": "a\\r\\nX-Evil: 1"}'),
        (200, b'{"token": 5}'),
        (200, b'{"token": "a", "expires_in": "soon"}'),
    ],
)
def test_a_token_server_that_talks_nonsense_is_an_error(status: int, body: bytes) -> None:
    authorizer = _authorizer(_TokenServer(status, body))
    authorizer.challenged(_BEARER, (), sent=None)
    with pytest.raises(RegistryReplyError, match="token server"):
        authorizer.header(_PULL)
