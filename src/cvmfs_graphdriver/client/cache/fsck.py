"""Checks that the objects in the cache are undamaged.

Owns: reading every object again. An object is right if its content has the checksum that the ledger has; one
without a checksum is right if it has its digest after being compressed as stock servers do, or, if its name
says so, as it is. Wrong objects are moved to the quarantine; unproven ones are removed, since they can be
fetched again. Must not know: limits, the network.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from isal import isal_zlib

from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Checked", "Verdict", "check_cache"]

_PIECE = 1 << 20


class Verdict(StrEnum):
    """The result for an object."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Checked:
    """One object; ``size`` is in bytes, ``path`` says what it is for."""

    digest: str
    size: int
    path: str
    verdict: Verdict


def check_cache(cache: Cache) -> Iterator[Checked]:
    """Check every object, and remove those that are not right. Raises CacheError."""
    eviction = cache.eviction
    records = {record.digest: record for record in eviction.records()} if eviction else {}
    for text, size in list(cache.objects()):
        record = records.get(text)
        try:
            digest, compression = cache.parse(text)
        except FormatError:
            continue
        verdict = _judge(cache, digest, compression, record.crc32 if record else -1)
        if verdict is Verdict.WRONG:
            cache.quarantine(text)
        elif verdict is Verdict.UNPROVEN and eviction is not None:
            eviction.evict(text)
        yield Checked(text, size, record.path if record else "", verdict)


def _judge(cache: Cache, digest: Digest, compression: Compression, crc32: int) -> Verdict:
    path = cache.path(digest, compression)
    checksum = 0
    hasher = digest.algorithm.new()
    plain = digest.algorithm.new()
    compressor = zlib.compressobj()
    try:
        with open(path, "rb") as file:
            while data := file.read(_PIECE):
                checksum = isal_zlib.crc32(data, checksum)
                if crc32 < 0:
                    hasher.update(compressor.compress(data))
                    plain.update(data)
    except FileNotFoundError:
        return Verdict.RIGHT
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}") from error
    if crc32 >= 0:
        return Verdict.RIGHT if checksum == crc32 else Verdict.WRONG
    hasher.update(compressor.flush())
    proven = compression is Compression.ZLIB and digest.raw == hasher.digest()
    if compression is Compression.NONE or cache.alien:
        proven = proven or digest.raw == plain.digest()
    return Verdict.RIGHT if proven else Verdict.UNPROVEN
