"""The stock server's repository settings, as far as they determine how content is stored.

Owns: the parameters of ``server.conf`` and their meaning here (CernVM-FS format reference, section 13.4). A
parameter that is missing from the file has the stock server's default, which does not suit images; therefore
the file is read only on request. Must not know: where repositories and their keys are.
"""

from pathlib import Path
from typing import Final

from cvmfs_graphdriver.publisher.options import RepositoryOptions, Weights
from cvmfs_graphdriver.publisher.storage.assignments import Assignments
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.chunking import ChunkSizes

__all__ = ["load_server_settings"]

_MOST_CHUNK: Final = 1 << 30
_MOST_ENTRIES: Final = 1 << 31
_COMPRESSIONS: Final = {"default": Compression.ZLIB, "zlib": Compression.ZLIB, "none": Compression.NONE}


def load_server_settings(file: Path) -> RepositoryOptions:
    """Read a file such as ``/etc/cvmfs/repositories.d/<fqrn>/server.conf``.

    Raises StorageError: it cannot be read, or has an invalid value.
    """
    values = Assignments.load(file, "CVMFS_")
    compression = values.text("COMPRESSION_ALGORITHM", "default").lower()
    if compression not in _COMPRESSIONS:
        values.refuse("COMPRESSION_ALGORITHM", f"{compression!r} is not one of {', '.join(_COMPRESSIONS)}")
    return RepositoryOptions(
        compression=_COMPRESSIONS[compression],
        chunking=_chunk_sizes(values) if values.boolean("USE_FILE_CHUNKING", default=True) else None,
        catalog_weights=_weights(values) if values.boolean("AUTOCATALOGS", default=False) else None,
        auto_tag=values.boolean("AUTO_TAG", default=True),
        include_xattrs=values.boolean("INCLUDE_XATTRS", default=False),
        ignore_special_files=values.boolean("IGNORE_SPECIAL_FILES", default=False),
        break_cross_directory_hardlinks=values.boolean("IGNORE_XDIR_HARDLINKS", default=True),
    )


def _weights(values: Assignments) -> Weights:
    usual = Weights()
    return Weights(
        most=max(1, values.number("AUTOCATALOGS_MAX_WEIGHT", usual.most, _MOST_ENTRIES)),
        least=max(1, values.number("AUTOCATALOGS_MIN_WEIGHT", usual.least, _MOST_ENTRIES)),
    )


def _chunk_sizes(values: Assignments) -> ChunkSizes:
    usual = ChunkSizes()
    sizes = ChunkSizes(
        values.number("MIN_CHUNK_SIZE", usual.minimum, _MOST_CHUNK),
        values.number("AVG_CHUNK_SIZE", usual.average, _MOST_CHUNK),
        values.number("MAX_CHUNK_SIZE", usual.maximum, _MOST_CHUNK),
    )
    if not 32 <= sizes.minimum < sizes.average < sizes.maximum:
        values.refuse("AVG_CHUNK_SIZE", "it must lie between the minimum and the maximum chunk size")
    return sizes
