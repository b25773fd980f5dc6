"""The settings of one repository: typed, checked, frozen.

Owns: the settings and their units. Must not know: the parameters they are derived from (``meaning``), nor who
uses them.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.configuration.operation import OperationSettings
from cvmfs_graphdriver.client.configuration.search import Configuration
from cvmfs_graphdriver.repository.digest import Digest

__all__ = [
    "CacheSettings",
    "PresentationSettings",
    "RepositorySettings",
    "RevisionSettings",
    "TrustSettings",
]


class TrustSettings(NamedTuple):
    """Files with public keys, and lists of refused certificates and revisions (which may be absent)."""

    public_keys: tuple[Path, ...]
    blacklists: tuple[Path, ...]


class CacheSettings(NamedTuple):
    """Where objects are stored. ``quota`` in bytes, None for unlimited; others manage an ``alien`` cache."""

    directory: Path
    workspace: Path
    alien: bool
    quota: int | None
    metadata_memory: int
    open_files: int
    open_catalogs: int


class RevisionSettings(NamedTuple):
    """Which revision to mount: at most one of the first three, else the newest; ``max_ttl`` in seconds."""

    root_hash: Digest | None
    tag: str
    date: datetime | None
    auto_update: bool
    alternative_paths: bool
    max_ttl: float | None


class PresentationSettings(NamedTuple):
    """How entries appear to users; ``variables`` can be referred to by variant symlinks."""

    claim_ownership: bool
    check_permissions: bool
    world_readable: bool
    suid: bool
    uid_map: Path | None
    gid_map: Path | None
    magic_xattrs: str
    protected_xattrs: frozenset[str]
    privileged_gids: frozenset[int]
    variables: Mapping[str, str]


class RepositorySettings(NamedTuple):
    """Everything a client needs to know about one repository."""

    fqrn: str
    network: NetworkSettings
    external: NetworkSettings | None
    trust: TrustSettings
    cache: CacheSettings
    revision: RevisionSettings
    presentation: PresentationSettings
    talk_socket: Path
    talk_owner: str
    operation: OperationSettings
    configuration: Configuration
