"""Addresses of servers, proxies and name servers, which come from outside.

Owns: which text may be one, and the host in it (RFC 3986, section 3.2.2). Must not know: what is there.
"""

from urllib.parse import urlsplit

__all__ = ["host_of", "is_address", "place_of_nameserver"]

_DOMAIN = 53


def is_address(text: str) -> bool:
    """Whether this is a URL that can be worked with; nobody need answer there."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    printable = text.isascii() and text.isprintable()
    return printable and bool(parts.scheme) and bool(parts.hostname or parts.scheme == "file")


def host_of(url: str) -> str:
    """The name or number of a URL's host; empty if it has none, or is no URL."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def place_of_nameserver(text: str) -> tuple[str, int]:
    """Address and port of a name server: ``1.2.3.4``, ``1.2.3.4:53``, ``::1`` or ``[::1]:53``.

    Raises ValueError: it is none of these.
    """
    import ipaddress  # which few need: it takes its time

    if text.count(":") > 1 and "[" not in text:
        host, port = text, _DOMAIN
    else:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or text, parts.port or _DOMAIN
    return str(ipaddress.ip_address(host)), port
