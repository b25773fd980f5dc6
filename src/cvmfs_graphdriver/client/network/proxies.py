"""The syntax of proxy lists (CernVM-FS format reference, section 8.1).

Owns: groups of proxies that share the load, in the order in which they are tried. Must not know: the
addresses of names, which proxy is in use.
"""

from itertools import chain
from typing import NamedTuple

from cvmfs_graphdriver.client.addresses import shown_url

__all__ = ["DIRECT", "Groups", "Proxy", "ProxyGroups", "parse_groups", "proxy_groups"]


class Proxy(NamedTuple):
    """``url`` is what connections are made to; ``name`` is its name in the configuration, for people: without
    a user's name and password.

    The two differ where the proxy's host name has been replaced by one of its addresses.
    """

    url: str
    name: str

    @property
    def address(self) -> str:
        """``url`` as it may be shown."""
        return shown_url(self.url)


DIRECT = Proxy("DIRECT", "DIRECT")
"""A direct connection; it appears in lists like a proxy."""

Groups = tuple[tuple[Proxy, ...], ...]


class ProxyGroups(NamedTuple):
    """All groups in the order in which they are tried; those from ``fallback`` on are fallback groups."""

    groups: Groups
    fallback: int

    @property
    def size(self) -> int:
        """The number of proxies in all groups."""
        return sum(len(group) for group in self.groups)


def parse_groups(text: str) -> Groups:
    """``a|b;c`` as groups; empty members and groups are dropped, and bare names get ``http://``."""
    groups = []
    for part in text.split(";"):
        members = tuple(_proxy(word.strip()) for word in part.split("|") if word.strip())
        if members:
            groups.append(members)
    return tuple(groups)


def proxy_groups(regular: str, fallback: str = "") -> ProxyGroups:
    """Regular and fallback lists as one.

    DIRECT is removed from the fallback list and, if any fallback remains, from the regular list too. If no
    proxy is left, the only group is DIRECT.
    """
    spare = _without_direct(parse_groups(fallback))
    first = parse_groups(regular)
    if spare:
        first = _without_direct(first)
    return ProxyGroups((*first, *spare) or ((DIRECT,),), len(first) or (0 if spare else 1))


def _proxy(word: str) -> Proxy:
    if word.upper() == "DIRECT":
        return DIRECT
    url = word if "://" in word else f"http://{word}"
    return Proxy(url, shown_url(url))


def _without_direct(groups: Groups) -> Groups:
    kept = (tuple(proxy for proxy in group if proxy != DIRECT) for group in groups)
    return tuple(filter(None, chain(kept)))
