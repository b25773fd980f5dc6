"""Reading objects back from a storage; none is trusted before its digest has been verified.

Owns: the check of a repository's own objects, and of any other (CernVM-FS format reference, sections 1.4 and
1.5), and of the form that replication relies on. Must not know: what is in an object.
"""

from cvmfs_graphdriver.publisher.errors import MissingObjectError
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import Decompressor, Engine, compress, decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError

__all__ = ["is_replicable", "read_object", "verify_object"]

_OBJECT_LIMIT = 4 << 30
_PIECE = 1 << 20


def read_object(storage: Storage, name: ObjectName) -> bytes:
    """One of the repository's own objects (catalog, history …), decompressed.

    Raises MissingObjectError, DigestMismatchError, FormatError, StorageError.
    """
    stored = storage.get(name.path, limit=_OBJECT_LIMIT)
    if stored is None:
        raise _missing(storage, name)
    if Digest.of(stored, name.digest.algorithm) != name.digest:
        raise _damaged(storage, name)
    return decompress(stored, limit=_OBJECT_LIMIT)


def is_replicable(storage: Storage, name: ObjectName) -> bool:
    """Whether a certificate or metainfo object is still the same after a replication.

    ``cvmfs_swissknife pull`` decompresses these two and compresses them again, by zlib at level 6, and
    stores what comes out under the old name. Raises as ``read_object`` does.
    """
    again = compress(read_object(storage, name), engine=Engine.ZLIB)
    return Digest.of(again, name.digest.algorithm) == name.digest


def verify_object(storage: Storage, name: ObjectName, compression: Compression, size: int) -> int:
    """Read an object of ``size`` bytes to its end; returns its size as stored.

    Raises MissingObjectError, DigestMismatchError, FormatError, StorageError.
    """
    opened = storage.open(name.path)
    if opened is None:
        raise _missing(storage, name)
    hasher = name.digest.algorithm.new()
    decompressor = Decompressor(compression, limit=size)
    stored = found = 0
    broken: FormatError | None = None
    with opened as reader:
        while data := reader.read(_PIECE):
            stored += len(data)
            hasher.update(data)
            try:
                found += len(decompressor.feed(data)) if broken is None else 0
            except FormatError as error:
                broken = error
    if hasher.digest() != name.digest.raw:
        raise _damaged(storage, name)
    if broken is None:
        found += len(decompressor.finish())
    if broken is not None or found != size:
        raise FormatError(
            f"object {name} in {storage.location} does not hold {size} bytes as it should: "
            f"{broken or f'it holds {found}'}"
        )
    return stored


def _missing(storage: Storage, name: ObjectName) -> MissingObjectError:
    return MissingObjectError(f"object {name} is missing from {storage.location}")


def _damaged(storage: Storage, name: ObjectName) -> DigestMismatchError:
    return DigestMismatchError(f"object {name} in {storage.location} is damaged: its digest does not match")
