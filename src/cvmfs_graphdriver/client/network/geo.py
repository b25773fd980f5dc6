"""The Geo API: servers sort themselves by their distance from us (format reference, section 8.4).

Owns: the question and the meaning of the answer. Must not know: how it is sent.
"""

from collections.abc import Sequence
from urllib.parse import quote

from cvmfs_graphdriver.client.addresses import host_of

__all__ = ["SEPARATOR", "geo_path", "parse_order"]

SEPARATOR = "+PXYSEP+"
"""Separates servers from fallback proxies in a question about both."""
_LIMIT = 4096


def geo_path(asker: str, places: Sequence[str]) -> str:
    """The path of the question below a server's URL.

    ``asker`` is where distance is measured from: the name of a proxy, or the client's own identifier;
    ``places`` are URLs, and SEPARATOR.
    """
    names = [place if place == SEPARATOR else host_of(place) or place for place in places]
    return (
        f"api/v1.0/geo/{quote(asker, safe='', errors='surrogateescape')}/{quote(','.join(names), safe=',+')}"
    )


def parse_order(answer: bytes, count: int) -> list[int]:
    """The answer's order as indices from 0. Raises ValueError: it is not an order of ``count`` places."""
    try:
        order = [int(word) - 1 for word in answer[:_LIMIT].decode("ascii").strip().split(",")]
    except ValueError:
        order = []
    if sorted(order) != list(range(count)):
        raise ValueError(f"the answer is not an order of {count} places")
    return order
