"""The records of chains in a repository, as its publisher keeps them (docs/repository-layout.md).

Owns: which records layers need, writing them, and removing those whose layer is gone. Must not know: where
layers come from, who reads the records.

Up to a number of records, all are in one catalog, so that a node needs one more object for all layers of an
image; beyond that, each shard gets its own, so that a new image does not make every node fetch all records
again (docs/adr/0024-index-of-chains.md).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cvmfs_graphdriver.conversion.places import require_way
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.image.chain import CHAINS, ChainRecord, chain_ids, record_directory
from cvmfs_graphdriver.oci.image.model import ImageLayer
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import CATALOG_MARKER

__all__ = ["needed_records", "prune_records", "write_records"]

_MOST: Final = 6000
"""Entries of the index that one catalog may have: about 2000 records, 700 kB compressed."""
_LEAST: Final = 4
"""More entries than a record has, so only shards get catalogs of their own."""
_LAYER, _DIFF = b"/layer", b"/diff"


def needed_records(
    transaction: Transaction, layers: Sequence[ImageLayer], place: Callable[[ContentDigest], bytes | None]
) -> dict[bytes, ChainRecord]:
    """The records, by their directories, that the repository lacks for an image's layers, base first.

    ``place`` returns the directory of a layer, given the digest of its blob; None if it has none. A record
    that is there stays if it is right, also if it names another copy of the same layer.

    Raises ThinImageFormatError: a layer cannot have a record; LayerPlaceError: something is in the way.
    """
    needed: dict[bytes, ChainRecord] = {}
    chains = chain_ids(layer.diff_id for layer in layers)
    for layer, chain in zip(layers, chains, strict=True):
        directory = place(layer.descriptor.digest)
        if directory is None:
            continue
        at = record_directory(chain)
        known = _record_at(transaction, at)
        if known is None or known.diff_id != layer.diff_id or not _has_layer(transaction, known):
            needed[at] = ChainRecord.of(directory, layer.descriptor.digest, layer.diff_id)
            require_way(transaction, at + _LAYER)
    return needed


def write_records(transaction: Transaction, records: Mapping[bytes, ChainRecord]) -> None:
    """Write records to their directories."""
    if not records:
        return
    transaction.make_catalog(CHAINS)
    for at, record in records.items():
        layer, diff = record.links()
        transaction.write_link(at + _LAYER, layer)
        transaction.write_link(at + _DIFF, diff)
    transaction.split(CHAINS, most=_MOST, least=_LEAST)


def prune_records(transaction: Transaction) -> int:
    """Remove the records whose layers are gone, and shards that are empty then; returns how many."""
    count = 0
    for shard in _directories(transaction, CHAINS):
        left = 0
        for at in _directories(transaction, shard):
            record = _record_at(transaction, at)
            if record is None or _has_layer(transaction, record):
                left += 1
            else:
                transaction.remove(at)
                count += 1
        if not left and all(entry.name == CATALOG_MARKER for entry in transaction.listing(shard)):
            transaction.remove(shard)
    return count


def _directories(transaction: Transaction, path: bytes) -> list[bytes]:
    return [path + b"/" + entry.name for entry in transaction.listing(path) if entry.is_directory]


def _record_at(transaction: Transaction, at: bytes) -> ChainRecord | None:
    """The record in a directory; None if there is none, or not of a form that we know."""
    layer, diff = transaction.lookup(at + _LAYER), transaction.lookup(at + _DIFF)
    if layer is None or diff is None:
        return None
    try:
        return ChainRecord.parse(layer.symlink, diff.symlink)
    except ThinImageFormatError:
        return None


def _has_layer(transaction: Transaction, record: ChainRecord) -> bool:
    entry = transaction.lookup(record.directory)
    return entry is not None and entry.is_directory
