"""The settings of a repository that the publisher honours (CernVM-FS format reference, section 13.4).

Owns: names, defaults and meaning. The defaults suit container images: extended attributes and special files
are kept. Must not know: where settings are stored.
"""

from dataclasses import dataclass

from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.chunking import ChunkSizes
from cvmfs_graphdriver.repository.compression import Engine
from cvmfs_graphdriver.repository.digest import Algorithm

__all__ = ["RepositoryOptions", "Weights"]


@dataclass(frozen=True, slots=True)
class Weights:
    """Catalogs with more than ``most`` entries are split into parts of at least ``least``."""

    most: int = 100_000
    least: int = 1_000


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """``ttl`` is in seconds; ``whitelist_days`` is how long a whitelist stays valid after signing.

    Without ``catalog_weights``, a tree is always one catalog, however big.
    """

    algorithm: Algorithm = Algorithm.SHA1
    compression: Compression = Compression.ZLIB
    engine: Engine = Engine.ISAL
    chunking: ChunkSizes | None = ChunkSizes()  # noqa: RUF009 - frozen
    catalog_weights: Weights | None = Weights()
    ttl: int = 240
    whitelist_days: int = 30
    garbage_collectable: bool = True
    auto_tag: bool = False
    include_xattrs: bool = True
    ignore_special_files: bool = False
    break_cross_directory_hardlinks: bool = False
