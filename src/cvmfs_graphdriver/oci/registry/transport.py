"""HTTP for registries: pools, timeouts, retries with backoff, redirects that leak no credentials.

Owns: one exchange with any server, retried while that may help. Must not know: registries. The credentials of
a request go only to the origin (scheme, host, port) they are meant for; a redirect to another origin drops
them, since a signed storage address must not see them, and would reject them.
"""

import ipaddress
import random
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    InsecureRequestWarning,
    SSLError,
)

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.oci.errors import RegistryReplyError, RegistryUnreachableError
from cvmfs_graphdriver.oci.registry.reach import check_lead

__all__ = ["Reply", "Transport", "TransportSettings", "is_loopback", "same_origin"]

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_MAX_PAUSE = 30.0
_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Timeouts (in seconds), retries, trust, and a clock that tests can replace."""

    connect_seconds: float = 10
    read_seconds: float = 60
    attempts: int = 5
    first_pause: float = 0.2
    ca_file: Path | None = None
    """Certificate authorities to trust besides the system's, in PEM form."""
    insecure_hosts: frozenset[str] = frozenset()
    """Registries ``host[:port]`` without TLS or with an unchecked certificate, like dockerd's option."""
    allow_private_redirects: bool = False
    """Whether servers may lead us to addresses that are closer to this machine than their own."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def pause(self, failures: int, retry_after: str | None = None) -> None:
        """Wait before the next attempt: twice as long each time, or as long as the server asks."""
        seconds = self.first_pause * 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - not a secret
        if retry_after and retry_after.isdecimal():
            seconds = float(retry_after[:6])
        self.sleep(min(seconds, _MAX_PAUSE))


def is_loopback(host: str) -> bool:
    """Whether ``host[:port]`` is this machine, by dockerd's rule."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have the same origin: scheme, host and port (RFC 6454)."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port


@dataclass(frozen=True, slots=True)
class Reply:
    """A response whose body is still to be read; ``url`` is where it came from, after redirects."""

    url: str
    response: urllib3.BaseHTTPResponse

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str:
        """A header's value; empty if it is absent."""
        return self.response.headers.get(name, "")

    def body(self, limit: int) -> bytes:
        """Read the whole body and return the connection to its pool.

        Raises RegistryReplyError: it is longer than ``limit`` bytes. RegistryUnreachableError: it breaks off.
        """
        try:
            # One read may return less than there is, and only the empty one reports that the body broke off.
            blocks = []
            left = limit + 1
            while left and (block := self.response.read(left)):
                blocks.append(block)
                left -= len(block)
        except HTTPError as error:
            raise RegistryUnreachableError(
                f"the answer from {_shown(self.url)} broke off: {error}"
            ) from error
        finally:
            self.close()
        if not left:
            raise RegistryReplyError(f"{_shown(self.url)} answered with more than {limit} bytes")
        return b"".join(blocks)

    def close(self) -> None:
        """Return the connection if the response is complete, otherwise close it."""
        self.response.close()
        self.response.release_conn()


def _shown(url: str) -> str:
    """An address without its query, which may contain a signature."""
    return url.partition("?")[0]


class Transport:
    """Connections to any number of servers."""

    def __init__(self, settings: TransportSettings) -> None:
        """Raises RegistryUnreachableError: the file of certificate authorities cannot be read."""
        self.settings = settings
        self._managers: dict[tuple[bool, str], urllib3.PoolManager] = {}
        self._verified = ssl.create_default_context()
        if settings.ca_file is not None:
            try:
                self._verified.load_verify_locations(settings.ca_file)
            except OSError as error:
                raise RegistryUnreachableError(
                    f"cannot read the certificates in {settings.ca_file}: {error.strerror or error}"
                ) from error

    def close(self) -> None:
        """Close every idle connection."""
        for manager in self._managers.values():
            manager.clear()

    def check_lead(self, start: str, url: str) -> None:
        """Check that the server of ``start`` may lead us to ``url``.

        Raises RegistryReplyError: it may not; ValueError: one of them is not a valid address.
        """
        if not self.settings.allow_private_redirects:
            check_lead(start, url)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        attempts: int | None = None,
    ) -> Reply:
        """Perform one exchange, following redirects and retrying temporary failures.

        ``headers`` may include Authorization, which only the origin of ``url`` receives. The reply may have
        any status; the caller closes it.

        Raises RegistryUnreachableError: no answer after all attempts. RegistryReplyError: too many redirects,
        or one to an address that is not HTTP, or where the server may not lead us.
        """
        attempts = attempts or self.settings.attempts
        failures = 0
        while True:
            try:
                reply = self._follow(method, url, headers, body)
            except ValueError as error:
                raise RegistryReplyError(
                    f"{_shown(url)[:200]!r} is not a valid server address: {error}"
                ) from error
            except HTTPError as error:
                failures += 1
                if failures >= attempts or _is_final(error):
                    raise RegistryUnreachableError(_explain(url, error)) from error
                self.settings.pause(failures)
                continue
            failures += 1
            if reply.status not in _PASSING or failures >= attempts:
                return reply
            reply.close()
            self.settings.pause(failures, reply.header("Retry-After"))

    def _follow(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        start = url
        sent = {"User-Agent": f"cvmfs-graphdriver/{__version__}", "Accept-Encoding": "identity", **headers}
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._manager(url).request(
                method,
                url,
                headers=sent,
                body=body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            reply = Reply(url, response)
            location = reply.header("Location")
            if method not in {"GET", "HEAD"} or reply.status not in _REDIRECTS or not location:
                return reply
            reply.close()
            url = urljoin(url, location)
            if urlsplit(url).scheme not in {"http", "https"}:
                raise RegistryReplyError(
                    f"{_shown(start)} redirects to {location[:200]!r}, which is not an HTTP address"
                )
            self.check_lead(start, url)
            if not same_origin(url, start):
                sent.pop("Authorization", None)
        raise RegistryReplyError(f"{_shown(start)} redirects more than {_MAX_REDIRECTS} times")

    def _manager(self, url: str) -> urllib3.PoolManager:
        """The pool for an address: one per proxy and per whether certificates are checked."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        insecure = host in self.settings.insecure_hosts
        proxy = ""
        if not is_loopback(host) and not urllib.request.proxy_bypass(host):
            proxy = urllib.request.getproxies().get(parts.scheme, "")
        key = (insecure, proxy)
        if key not in self._managers:
            self._managers[key] = self._new_manager(proxy, insecure=insecure)
        return self._managers[key]

    def _new_manager(self, proxy: str, *, insecure: bool) -> urllib3.PoolManager:
        context = self._verified
        if insecure:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            # The user asked for it by naming the host; a warning at every request would not help.
            urllib3.disable_warnings(InsecureRequestWarning)
        timeout = urllib3.Timeout(connect=self.settings.connect_seconds, read=self.settings.read_seconds)
        if proxy:
            return urllib3.ProxyManager(proxy, timeout=timeout, ssl_context=context, maxsize=_CONNECTIONS)
        return urllib3.PoolManager(timeout=timeout, ssl_context=context, maxsize=_CONNECTIONS)


def _is_final(error: HTTPError) -> bool:
    """Whether a retry is pointless, as after a failed TLS handshake."""
    return isinstance(error, SSLError)


def _explain(url: str, error: HTTPError) -> str:
    host = urlsplit(url).netloc.rpartition("@")[2]
    if isinstance(error, SSLError):
        return (
            f"no secure connection to {host}: {error}; "
            "name its certificate authority with --ca-file, or allow the host with --insecure-registry"
        )
    reason = getattr(error, "_message", None) or str(error)
    return f"cannot reach {host}: {reason}; check the name, the port and the network"
