"""The settings of one repository: typed, checked, frozen.

Owns: the settings and their units. Must not know: the parameters they are derived from (``meaning``), nor who
uses them.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.operation import OperationSettings
from cvmfs_graphdriver.client.configuration.search import Configuration
from cvmfs_graphdriver.repository.digest import Digest

__all__ = [
    "CacheSettings",
    "NetworkSettings",
    "PresentationSettings",
    "RepositorySettings",
    "RevisionSettings",
    "TrustSettings",
]


class TrustSettings(NamedTuple):
    """Files with public keys, and lists of refused certificates and revisions (which may be absent)."""

    public_keys: tuple[Path, ...]
    blacklists: tuple[Path, ...]


class NetworkSettings(NamedTuple):
    """How to reach servers; times in seconds, proxies in the syntax of format reference, section 8.1."""

    servers: tuple[str, ...]
    proxies: str
    fallback_proxies: str
    pac_urls: tuple[str, ...]
    shard: bool
    proxy_reset_after: float
    host_reset_after: float
    timeout: float
    timeout_direct: float
    max_retries: int
    backoff_init: float
    backoff_max: float
    low_speed_limit: int
    failover_indefinitely: bool
    follow_redirects: bool
    send_info_header: bool
    http_tracing: bool
    http_tracing_headers: tuple[str, ...]
    use_geoapi: bool
    proxy_template: str
    prefer_ip_family: int
    max_addresses_per_proxy: int
    dns_server: str
    dns_retries: int
    dns_timeout: float
    dns_min_ttl: float
    dns_max_ttl: float


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
