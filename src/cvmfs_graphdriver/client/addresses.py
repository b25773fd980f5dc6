"""Addresses of servers, proxies and name servers, as configuration and proxies give them.

Owns: which text is a valid address, its host, and what people may see of it (RFC 3986, section 3.2). Must not
know: who answers there.
"""

import re
from urllib.parse import urlsplit

__all__ = ["host_of", "is_address", "place_of_nameserver", "shown_url", "shown_urls"]

_DOMAIN = 53
_USER = re.compile(r"(://)[^/?#]*@")
_ANY_USER = re.compile(r"^([^:/?#]*://)?.*@", re.DOTALL)


def is_address(text: str) -> bool:
    """Whether this is a usable URL, whether or not anything answers there."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    printable = text.isascii() and text.isprintable()
    return printable and bool(parts.scheme) and bool(parts.hostname or parts.scheme == "file")


def host_of(url: str) -> str:
    """The host name or address in a URL; empty if it has none, or is not a URL."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def shown_url(url: str) -> str:
    """The URL as it may be shown and logged: without a user's name and password."""
    secret = _USER if is_address(url) else _ANY_USER
    return secret.sub(r"\1", url, count=1)


def shown_urls(text: str) -> str:
    """A list of URLs as it may be shown and logged."""
    return re.sub(r"[^;|\s]+", lambda url: shown_url(url[0]), text)


def place_of_nameserver(text: str) -> tuple[str, int]:
    """Address and port of a name server: ``1.2.3.4``, ``1.2.3.4:53``, ``::1`` or ``[::1]:53``.

    Raises ValueError: it has none of these forms.
    """
    import ipaddress  # slow to import, and few need it

    if text.count(":") > 1 and "[" not in text:
        host, port = text, _DOMAIN
    else:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or text, parts.port or _DOMAIN
    return str(ipaddress.ip_address(host)), port
