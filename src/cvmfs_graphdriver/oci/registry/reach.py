"""Where a registry may lead us: redirects, token servers and upload locations that it names.

Owns: the rule that a registry leads no deeper into this machine or its network than it is itself: from a
public address not to a private one, and from elsewhere not to this machine's loopback or link-local
addresses, where services trust whoever reaches them. Must not know: HTTP.

A name is judged by every address that it has when it is resolved here, before the request resolves it again.
A name whose owner changes its address in between (DNS rebinding) is not detected. Behind a proxy, which
resolves names itself, a name that is unknown here passes.
"""

import ipaddress
import socket
from enum import IntEnum
from urllib.parse import urlsplit

from urllib3.util import parse_url

from cvmfs_graphdriver.oci.errors import RegistryReplyError

__all__ = ["check_lead"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Reach(IntEnum):
    """Kinds of addresses; who is at one may lead to those before it."""

    PUBLIC = 0
    PRIVATE = 1
    LINK_LOCAL = 2
    LOOPBACK = 3


_NAMES = {
    _Reach.PRIVATE: "a private address",
    _Reach.LINK_LOCAL: "a link-local address",
    _Reach.LOOPBACK: "this machine",
}


def check_lead(start: str, url: str) -> None:
    """Check that the server of the address ``start`` may lead us to ``url``.

    Raises RegistryReplyError: it may not; ValueError: one of them is not a valid address.
    """
    source, target = _host(start), _host(url)
    if source == target:
        return
    found = max(_reaches(target))
    if found > min(_reaches(source)):
        raise RegistryReplyError(
            f"{source} leads to {target}, which is {_NAMES[found]}, but is not at such an address itself; "
            "if you trust it, use --allow-private-redirects"
        )


def _host(url: str) -> str:
    """The host that urllib3 will connect to; ValueError if another parser could see a different one."""
    host = (parse_url(url).host or "").strip("[]").lower()
    if not host or host != urlsplit(url).hostname:
        raise ValueError("its host is missing or ambiguous")
    return host


def _reaches(host: str) -> list[_Reach]:
    """The kinds of all addresses of a host."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return [_Reach.PUBLIC]
    return [_reach(ipaddress.ip_address(str(each[4][0]))) for each in found]


def _reach(address: _Address) -> _Reach:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _reach(inner)
    if address.is_loopback or address.is_unspecified:
        return _Reach.LOOPBACK
    if address.is_link_local:
        return _Reach.LINK_LOCAL
    return _Reach.PUBLIC if address.is_global else _Reach.PRIVATE
