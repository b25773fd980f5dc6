"""One registry as a server: its base address, its challenges, its errors (distribution, spec/api.md).

Owns: finding out how to reach the registry, authorising each request, and mapping refusals to errors. Must
not know: what is requested.

Only the registry itself may challenge us. A host that it redirects to, or whose address it gives, could name
a token server of its own, to which the registry's credentials would go: challenges from such hosts are
ignored.
"""

import threading
from collections.abc import Collection, Mapping
from urllib.parse import urljoin, urlsplit

from cvmfs_graphdriver.errors import printable
from cvmfs_graphdriver.oci.document import Document
from cvmfs_graphdriver.oci.errors import (
    CredentialsError,
    ImageNotFoundError,
    OciError,
    RegistryReplyError,
    RegistryUnreachableError,
)
from cvmfs_graphdriver.oci.image.reference import DOCKER_HUB
from cvmfs_graphdriver.oci.registry.auth import Authorizer, TokenAnswer
from cvmfs_graphdriver.oci.registry.credentials import Keychain
from cvmfs_graphdriver.oci.registry.transport import Reply, Transport, is_loopback, same_origin

__all__ = ["Connection"]

_HUB_ADDRESS = "registry-1.docker.io"
_COMPLAINT_LIMIT = 64 << 10
_TOKEN_LIMIT = 1 << 20
_AUTH_ROUNDS = 2


class Connection:
    """Requests to one registry, usable by several threads."""

    def __init__(self, host: str, transport: Transport, keychain: Keychain) -> None:
        """Talk to the registry ``host[:port]``; nothing is sent before the first request."""
        self.host = host
        self._address = _HUB_ADDRESS if host == DOCKER_HUB else host
        self._transport = transport
        self._keychain = keychain
        self._lock = threading.Lock()
        self._ready: tuple[str, Authorizer] | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        scopes: Collection[str],
        expect: Collection[int],
        what: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Send a request for ``path``, which is below ``/v2/`` or a full address that the registry gave us.

        Returns a reply whose status is one of ``expect``; ``what`` names the object in errors.

        Raises ImageNotFoundError, CredentialsError, RegistryReplyError, RegistryUnreachableError.
        """
        base, authorizer = self._prepare()
        try:
            url = urljoin(base, path)
            foreign = not same_origin(url, base)
            self._transport.check_lead(base, url)
        except ValueError as error:
            raise RegistryReplyError(
                f"registry {self.host} directs us to {path[:200]!r} for {what}, which is not a valid address"
            ) from error
        for _ in range(_AUTH_ROUNDS + 1):
            authorization = None if foreign else authorizer.header(scopes)
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            reply = self._transport.request(method, url, sent, body)
            if reply.status in expect:
                return reply
            challenge = _challenge_of(reply, base)
            refusal = self._refusal(reply, what)
            if reply.status != 401 or not authorizer.challenged(challenge, scopes, sent=authorization):
                raise refusal
        raise refusal

    def _prepare(self) -> tuple[str, Authorizer]:
        """The base address and the authorizer, determined by one request that needs no authorization."""
        with self._lock:
            if self._ready is None:
                self._ready = self._discover()
            return self._ready

    def _discover(self) -> tuple[str, Authorizer]:
        address = self._address
        may_be_plain = is_loopback(address) or address in self._transport.settings.insecure_hosts
        scheme = "https"
        try:
            reply = self._transport.request(
                "GET", f"https://{address}/v2/", {}, attempts=1 if may_be_plain else None
            )
        except RegistryUnreachableError:
            if not may_be_plain:
                raise
            scheme = "http"
            reply = self._transport.request("GET", f"http://{address}/v2/", {})
        base = f"{scheme}://{address}/v2/"
        authorizer = Authorizer(
            self.host,
            self._keychain.credentials_for(self.host),
            lambda url, headers, form: self._fetch_token(base, url, headers, form),
            self._transport.settings.clock,
            plain_http=scheme == "http",
        )
        if reply.status not in {200, 401, 403}:
            raise self._refusal(reply, "its API")
        reply.body(_COMPLAINT_LIMIT)
        authorizer.challenged(_challenge_of(reply, base), (), sent=None)
        return base, authorizer

    def _fetch_token(
        self, base: str, url: str, headers: Mapping[str, str], form: bytes | None
    ) -> TokenAnswer:
        try:
            self._transport.check_lead(base, url)
        except ValueError as error:
            raise RegistryReplyError(
                f"registry {self.host} names {url[:200]!r} as its token server, which is not a valid address"
            ) from error
        reply = self._transport.request("GET" if form is None else "POST", url, headers, form)
        return TokenAnswer(reply.status, reply.body(_TOKEN_LIMIT))

    def _refusal(self, reply: Reply, what: str) -> OciError:
        """The error for an unexpected reply, which is closed."""
        complaint = _complaint(reply)
        status = f"HTTP {reply.status}{complaint}"
        if reply.status == 401:
            elsewhere = urlsplit(reply.url).netloc.rpartition("@")[2]
            if elsewhere != self._address:
                return CredentialsError(
                    f"registry {self.host} redirects us to {elsewhere} for {what}, which requires "
                    f"authentication ({status}); credentials for {self.host} are not sent to another host: "
                    f"if you trust it, name {elsewhere} in the image instead"
                )
            return CredentialsError(
                f"registry {self.host} requires authentication for {what} ({status}); "
                "check user name and password, run docker login, or check that the image exists"
            )
        if reply.status == 403:
            return CredentialsError(f"registry {self.host} denies access to {what} ({status})")
        if reply.status == 404:
            return ImageNotFoundError(f"registry {self.host} does not have {what}{complaint}")
        if reply.status == 429:
            return RegistryReplyError(
                f"registry {self.host} limits the rate of requests ({status}); log in, or wait and try again"
            )
        return RegistryReplyError(f"registry {self.host} does not deliver {what}: {status}; try again later")


def _challenge_of(reply: Reply, base: str) -> str:
    """The challenge of the registry at ``base``; empty if the reply is from another host."""
    return reply.header("WWW-Authenticate") if same_origin(reply.url, base) else ""


def _complaint(reply: Reply) -> str:
    """The registry's own words about an error, safe for a terminal; empty if there are none."""
    try:
        body = reply.body(_COMPLAINT_LIMIT)
        errors = Document.parse("complaint", body, RegistryReplyError).objects("errors")
        texts = [
            f"{error.optional_text('code')} {error.optional_text('message')}".strip() for error in errors
        ]
    except (RegistryReplyError, RegistryUnreachableError):
        return ""
    text = "; ".join(texts)
    return f": {printable(text[:200])}" if text else ""
