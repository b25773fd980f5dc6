"""What a client and the process that fetches for it ahead of readers say to each other.

Owns: the messages, on top of ``kernel.channel``: first a pickled ``Setup``; then orders, each a pair of a
``Route`` and a list of ``Order``; what comes back is lists of ``Result``. All but the first are sent as plain
tuples. Must not know: who says it when.
"""

from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.settings import NetworkSettings

__all__ = ["CACHE", "Order", "Result", "Route", "Setup"]

CACHE = "cache"
"""What a ``Result`` has as ``failure`` if the object could not be written to the cache."""


class Setup(NamedTuple):
    """What a worker needs to know once."""

    settings: NetworkSettings
    identifier: str
    cache: Path
    alien: bool


class Route(NamedTuple):
    """How objects are to be fetched: an ``Attempt``'s values, and limits."""

    host: str
    proxy: tuple[str, str]
    no_cache: bool
    timeout: float
    transfers: int


class Order(NamedTuple):
    """One object; the values are those of ``Wanted``, and ``number`` is what the result has."""

    number: int
    name: str
    path: str
    size: int
    exact: bool
    compression: int


class Result(NamedTuple):
    """What became of an order. ``received`` bytes came in ``seconds``.

    ``failure`` is the name of a ``Failure``, with ``detail`` for people; "" for none: then the object is in
    the cache with ``size`` bytes and a checksum. ``CACHE``: it could not be written there. ``missing`` and
    ``wrong`` are those of ``Problem``, where ``wrong`` says that the bytes are not what they should be.
    """

    number: int
    failure: str
    detail: str
    missing: bool
    wrong: bool
    received: int
    seconds: float
    size: int
    crc32: int
