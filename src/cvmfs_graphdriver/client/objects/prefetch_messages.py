"""What a client and the process that fetches ahead for it tell each other.

Owns: the messages, which ``kernel.channel`` carries as plain tuples: first one ``Setup``, then orders, each a
pair of a ``Route`` and a list of ``Order``; the replies are lists of ``Result``, now and then an empty one as
a sign of life. Must not know: who sends them and when.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple, Self

from cvmfs_graphdriver.client.configuration.network import NetworkSettings

__all__ = ["CACHE", "UNTRIED", "Order", "Result", "Route", "Setup"]

CACHE = "cache"
"""The ``failure`` of a ``Result`` if the object could not be written to the cache."""
UNTRIED = "untried"
"""The ``failure`` of a ``Result`` if others have failed by the same route before its turn came."""


class Setup(NamedTuple):
    """What a worker needs to know once."""

    settings: NetworkSettings
    identifier: str
    cache: Path
    alien: bool

    def message(self) -> tuple[object, ...]:
        """The setup as a channel can send it."""
        return tuple(self.settings), self.identifier, os.fspath(self.cache), self.alien

    @classmethod
    def of_message(cls, message: tuple[Any, ...]) -> Self:
        """The setup in a message."""
        settings, identifier, cache, alien = message
        return cls(NetworkSettings(*settings), identifier, Path(cache), alien)


class Route(NamedTuple):
    """How to fetch objects: the values of an ``Attempt``, its time limit, and how many transfers at once."""

    host: str
    proxy: tuple[str, str]
    no_cache: bool
    timeout: float
    transfers: int


class Order(NamedTuple):
    """One object: ``number`` identifies it in the result, the other values are those of ``Wanted``."""

    number: int
    name: str
    path: str
    size: int
    exact: bool
    compression: int


class Result(NamedTuple):
    """The outcome of an order: ``received`` bytes came in ``seconds``.

    If ``failure`` is empty, the object is in the cache, with ``size`` bytes and a checksum. Otherwise it is
    the name of a ``Failure``, or ``CACHE``, or ``UNTRIED``, and ``detail`` explains
    it to people. ``missing`` is that of ``Problem``; ``wrong`` says that the bytes are not what they should
    be.
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
