"""Answering a registry's challenge: anonymous, basic, bearer (distribution, spec/auth/{token,oauth}.md).

Owns: which header answers which challenge, tokens and their lifetime. Must not know: sockets; token servers
are reached through a function from the caller. One authorizer serves one registry: its credentials are never
offered to another host, except the token server that the registry names over TLS.
"""

import base64
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from cvmfs_graphdriver.oci.document import Document
from cvmfs_graphdriver.oci.errors import CredentialsError, RegistryReplyError
from cvmfs_graphdriver.oci.registry.challenge import Challenge, parse_challenges
from cvmfs_graphdriver.oci.registry.credentials import Credentials

__all__ = ["Authorizer", "TokenAnswer", "TokenFetcher"]

_CLIENT = "cvmfs-graphdriver"
_DEFAULT_SECONDS = 60
_MARGIN_SECONDS = 10
_PRINTABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token server's answer: its HTTP status and a body of bounded length."""

    status: int
    body: bytes


class TokenFetcher(Protocol):
    """Sends one request to a token server; with a ``form``, by POST."""

    def __call__(self, url: str, headers: Mapping[str, str], form: bytes | None) -> TokenAnswer: ...


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    expires: float


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


class Authorizer:
    """Provides the Authorization header for every request to one registry."""

    def __init__(
        self,
        host: str,
        credentials: Credentials | None,
        fetch: TokenFetcher,
        clock: Callable[[], float],
        *,
        plain_http: bool,
    ) -> None:
        """Present ``credentials`` (None: be anonymous) to ``host``; ``clock`` counts seconds.

        ``plain_http``: the registry itself is used without TLS, so its token server may be too.
        """
        self._host = host
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._plain_http = plain_http
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}

    def header(self, scopes: Iterable[str]) -> str | None:
        """What to send with a request that needs ``scopes``; None to send nothing (yet)."""
        with self._lock:
            if self._credentials and self._credentials.registry_token:
                return f"Bearer {self._credentials.registry_token}"
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return _basic(self._credentials) if self._credentials else None
            return "Bearer " + self._token(self._challenge, frozenset(scopes))

    def challenged(self, header: str, scopes: Iterable[str], *, sent: str | None) -> bool:
        """Learn from a 401 answer to a request that carried ``sent``; returns whether a retry may help."""
        offered = {challenge.scheme: challenge for challenge in parse_challenges(header)}
        chosen = offered.get("bearer") or offered.get("basic")
        if chosen is None or (self._credentials and self._credentials.registry_token):
            return False
        with self._lock:
            self._challenge = chosen
            if chosen.scheme == "basic":
                return self._credentials is not None and sent is None
            key = frozenset(scopes)
            held = self._tokens.get(key)
            if held is not None and sent == f"Bearer {held.value}":
                # It should still be valid, yet the registry rejects it: request another.
                del self._tokens[key]
            return True

    def _token(self, challenge: Challenge, scopes: frozenset[str]) -> str:
        held = self._tokens.get(scopes)
        if held is None or held.expires <= self._clock():
            held = self._ask(challenge, scopes)
            self._tokens[scopes] = held
        return held.value

    def _ask(self, challenge: Challenge, scopes: frozenset[str]) -> _Token:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith(("https://", "http://") if self._plain_http else "https://"):
            raise RegistryReplyError(
                f"registry {self._host} names {realm[:200]!r} as its token server; "
                "credentials are never sent without TLS"
            )
        query = [("service", challenge.parameters.get("service", ""))]
        query += [("scope", scope) for scope in sorted(scopes)]
        asked = self._clock()
        answer = self._request(realm, query)
        if answer.status in {400, 401, 403}:
            who = "the credentials" if self._credentials else "an anonymous user"
            raise CredentialsError(
                f"the token server of registry {self._host} refuses {who} (HTTP {answer.status}); "
                "check user name and password, or run docker login"
            )
        if answer.status != 200:
            raise RegistryReplyError(
                f"the token server of registry {self._host} answered HTTP {answer.status}"
            )
        document = Document.parse(
            f"the answer of registry {self._host}'s token server", answer.body, RegistryReplyError
        )
        value = document.optional_text("token") or document.optional_text("access_token")
        if not _PRINTABLE.fullmatch(value):
            document.refuse("it contains no usable token")
        seconds = _DEFAULT_SECONDS
        if document.members.get("expires_in") is not None:
            seconds = max(document.natural("expires_in"), _DEFAULT_SECONDS)
        return _Token(value, asked + seconds - _MARGIN_SECONDS)

    def _request(self, realm: str, query: list[tuple[str, str]]) -> TokenAnswer:
        """GET with basic credentials, or POST with an identity token, which GET cannot carry."""
        credentials = self._credentials
        if credentials and credentials.identity_token:
            form = [("grant_type", "refresh_token"), ("client_id", _CLIENT)]
            form += [(key, value) for key, value in query if key != "scope"]
            form.append(("scope", " ".join(value for key, value in query if key == "scope")))
            form.append(("refresh_token", credentials.identity_token))
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._fetch(realm, headers, urlencode(form).encode())
        headers = {"Authorization": _basic(credentials)} if credentials else {}
        joint = "&" if "?" in realm else "?"
        return self._fetch(f"{realm}{joint}{urlencode(query)}", headers, None)
