"""Storing an object in a cache, in a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cvmfs_graphdriver.client.cache.cache import Cache, Incoming
from cvmfs_graphdriver.client.cache.ledger import Record
from cvmfs_graphdriver.repository.digest import Digest

__all__ = ["store"]


@contextmanager
def store(cache: Cache, digest: Digest, **known: Any) -> Iterator[Incoming]:
    """The object appears when the block ends without an error; ``known`` are fields of its record."""
    incoming = cache.begin(Record(digest.text, **{"size": 0, **known}))
    try:
        yield incoming
        cache.commit(incoming)
    finally:
        incoming.close()
