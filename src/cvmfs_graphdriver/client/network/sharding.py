"""Consistent spreading of objects over proxies (CernVM-FS format reference, section 8.2).

Owns: the ring of points, and the generator that places them. Both match the reference client, so that it
and this client ask the same proxy for the same object. Must not know: which proxies are alive.
"""

import bisect
import hashlib
from collections.abc import Iterator, Sequence

from cvmfs_graphdriver.client.network.proxies import Proxy

__all__ = ["Ring"]

_POINTS = 16
_LAST = 0xFFFFFFFF


class Ring:
    """Each proxy has 16 points on a ring of 32-bit numbers; a key belongs to the point at or after it."""

    def __init__(self, proxies: Sequence[Proxy]) -> None:
        points: dict[int, Proxy] = {}
        for proxy in proxies if len(proxies) > 1 else ():
            for point in _points(proxy.url):
                points.setdefault(point, proxy)
        self._points = sorted(points)
        self._proxies = [points[point] for point in self._points] or [proxies[0]]

    def find(self, key: int) -> Proxy:
        """The proxy that a 32-bit key belongs to."""
        index = bisect.bisect_left(self._points, key)
        return self._proxies[index if index < len(self._points) else 0]


def _points(url: str) -> Iterator[int]:
    """Numbers of the linear congruential generator MMIX, seeded by the URL's digest, scaled as floats."""
    state = int.from_bytes(hashlib.sha1(url.encode(), usedforsecurity=False).digest()[:4], "little")
    for _ in range(_POINTS):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield int(float(state) * float(_LAST) / float(2**64)) % _LAST
