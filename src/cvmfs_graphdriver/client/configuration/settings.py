"""What a client is told to do for one repository: typed, checked, frozen.

Owns: the meaning of parameters (CernVM-FS format reference, section 7.2), their units and their limits.
Must not know: how files are found and evaluated (``configuration``), nor what anybody does with a setting.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.addresses import is_address, place_of_nameserver
from cvmfs_graphdriver.client.config_repository import kept_config_repository
from cvmfs_graphdriver.client.configuration.operation import OperationSettings, operation_of
from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.configuration.reader import SettingReader
from cvmfs_graphdriver.client.configuration.search import (
    ConfigRepository,
    Configuration,
    files_ending,
    load_configuration,
)
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = [
    "CacheSettings",
    "NetworkSettings",
    "PresentationSettings",
    "RepositorySettings",
    "RevisionSettings",
    "TrustSettings",
    "load_settings",
    "settings_of",
]

_MEGABYTE = 1024 * 1024


class TrustSettings(NamedTuple):
    """Files with public keys, and files of refused certificates and revisions (which may be absent)."""

    public_keys: tuple[Path, ...]
    blacklists: tuple[Path, ...]


class NetworkSettings(NamedTuple):
    """How to reach servers; times in seconds, proxies in the syntax of section 8.1."""

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
    """Where objects are kept. ``quota`` in bytes, None for unlimited; ``alien``: somebody else manages it."""

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
    """How entries look to users; ``variables`` are what variant symlinks may name."""

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
    """Everything that a client needs to know about one repository."""

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


def load_settings(
    fqrn: str,
    etc: Path = Path("/etc/cvmfs"),
    overrides: Mapping[str, str] | None = None,
    *,
    config_repository: ConfigRepository | None = None,
) -> RepositorySettings:
    """Read the configuration of ``fqrn`` below ``etc``; ``overrides`` win over every file.

    ``config_repository`` finds, or fetches, the configuration repository where there is one; by default it is
    found where it is mounted, or where it was fetched before.

    Raises ConfigurationError: the name is no repository name, a file cannot be evaluated, a value makes no
    sense, or something without which no repository can be mounted is missing.
    """
    find = config_repository or kept_config_repository(etc, overrides or {})
    return settings_of(load_configuration(fqrn, etc, overrides or {}, find), etc)


def settings_of(configuration: Configuration, etc: Path) -> RepositorySettings:
    """Make sense of an evaluated configuration. Raises ConfigurationError as ``load_settings`` does."""
    reader = SettingReader(configuration)
    cache = _cache(reader)
    talk_socket = reader.path("CVMFS_TALK_SOCKET") or cache.workspace / f"cvmfs_io.{reader.fqrn}"
    return RepositorySettings(
        fqrn=reader.fqrn,
        network=_network(reader, etc),
        external=_external(reader),
        trust=_trust(reader, etc),
        cache=cache,
        revision=_revision(reader),
        presentation=_presentation(reader),
        talk_socket=talk_socket,
        talk_owner=reader.text("CVMFS_TALK_OWNER"),
        operation=operation_of(reader, cache.workspace / f"log.{reader.fqrn}"),
        configuration=configuration,
    )


def _servers(reader: SettingReader, name: str, limit: str) -> tuple[str, ...]:
    servers = reader.words(name, ";")
    for server in servers:
        if not re.match(r"(https?|file)://", server):
            raise reader.refusal(name, f"names {server!r}, which is no http://, https:// or file:// URL")
        if not is_address(server):
            raise reader.refusal(name, f"names {server!r}, which is no URL: there is an odd character in it")
    if reader.text(limit):
        servers = servers[: reader.number(limit, 1)]
    return tuple(server.rstrip("/") for server in servers)


def _network(reader: SettingReader, etc: Path) -> NetworkSettings:
    servers = _servers(reader, "CVMFS_SERVER_URL", "CVMFS_MAX_SERVERS")
    if not servers:
        raise ConfigurationError(
            f"{reader.fqrn}: no server is configured; set CVMFS_SERVER_URL, for instance in "
            f"{etc}/config.d/{reader.fqrn}.conf"
        )
    proxies = reader.text("CVMFS_HTTP_PROXY")
    if not proxies:
        if reader.text("CVMFS_CLIENT_PROFILE") != "single":
            raise ConfigurationError(
                f"{reader.fqrn}: no proxy is configured; set CVMFS_HTTP_PROXY in {etc}/default.local "
                f"(DIRECT for none)"
            )
        proxies = "auto;DIRECT"
    return _network_of(reader, servers, proxies, "")


def _external(reader: SettingReader) -> NetworkSettings | None:
    servers = _servers(reader, "CVMFS_EXTERNAL_URL", "CVMFS_EXTERNAL_MAX_SERVERS")
    if not servers:
        return None
    proxies = reader.text("CVMFS_EXTERNAL_HTTP_PROXY") or reader.text("CVMFS_HTTP_PROXY") or "DIRECT"
    return _network_of(reader, servers, proxies, "EXTERNAL_")


def _network_of(reader: SettingReader, servers: tuple[str, ...], proxies: str, kind: str) -> NetworkSettings:
    family = reader.text("CVMFS_IPFAMILY_PREFER") or "4"
    if family not in {"4", "6"}:
        raise reader.refusal("CVMFS_IPFAMILY_PREFER", "is neither 4 nor 6")
    return NetworkSettings(
        servers=servers,
        proxies=proxies,
        fallback_proxies=reader.text(f"CVMFS_{kind}FALLBACK_PROXY"),
        pac_urls=reader.words("CVMFS_PAC_URLS", ";"),
        shard=reader.boolean("CVMFS_PROXY_SHARD"),
        proxy_reset_after=reader.seconds("CVMFS_PROXY_RESET_AFTER"),
        host_reset_after=reader.seconds("CVMFS_HOST_RESET_AFTER"),
        timeout=_timeout(reader, kind, "TIMEOUT"),
        timeout_direct=_timeout(reader, kind, "TIMEOUT_DIRECT"),
        max_retries=reader.number("CVMFS_MAX_RETRIES"),
        backoff_init=reader.seconds("CVMFS_BACKOFF_INIT"),
        backoff_max=reader.seconds("CVMFS_BACKOFF_MAX"),
        low_speed_limit=reader.number("CVMFS_LOW_SPEED_LIMIT"),
        failover_indefinitely=reader.boolean("CVMFS_FAILOVER_INDEFINITELY"),
        follow_redirects=reader.boolean("CVMFS_FOLLOW_REDIRECTS"),
        send_info_header=reader.boolean("CVMFS_SEND_INFO_HEADER"),
        http_tracing=reader.boolean("CVMFS_HTTP_TRACING"),
        http_tracing_headers=reader.words("CVMFS_HTTP_TRACING_HEADERS", "|"),
        use_geoapi=reader.boolean("CVMFS_USE_GEOAPI") and not kind,
        proxy_template=reader.text("CVMFS_PROXY_TEMPLATE"),
        prefer_ip_family=int(family),
        max_addresses_per_proxy=reader.number("CVMFS_MAX_IPADDR_PER_PROXY"),
        dns_server=_nameserver(reader),
        dns_retries=reader.number("CVMFS_DNS_RETRIES"),
        dns_timeout=reader.seconds("CVMFS_DNS_TIMEOUT"),
        dns_min_ttl=reader.seconds("CVMFS_DNS_MIN_TTL"),
        dns_max_ttl=reader.seconds("CVMFS_DNS_MAX_TTL"),
    )


def _timeout(reader: SettingReader, kind: str, name: str) -> float:
    own = f"CVMFS_{kind}{name}"
    return reader.seconds(own if reader.text(own) else f"CVMFS_{name}")


def _nameserver(reader: SettingReader) -> str:
    place = reader.text("CVMFS_DNS_SERVER")
    try:
        _ = place and place_of_nameserver(place)
    except ValueError:
        raise reader.refusal("CVMFS_DNS_SERVER", "is no address like 192.0.2.1 or [2001:db8::1]:53") from None
    return place


def _trust(reader: SettingReader, etc: Path) -> TrustSettings:
    keys = tuple(Path(word) for word in reader.words("CVMFS_PUBLIC_KEY", ":"))
    directory = reader.path("CVMFS_KEYS_DIR") or etc / "keys"
    if not keys:
        keys = tuple(files_ending(directory, ".pub"))
    if not keys:
        raise ConfigurationError(
            f"{reader.fqrn}: no public key is configured; put the repository's key into "
            f"{directory}/{reader.fqrn}.pub or name it in CVMFS_PUBLIC_KEY"
        )
    blacklists = [reader.path("CVMFS_BLACKLIST") or etc / "blacklist"]
    if reader.shared is not None:
        blacklists.append(reader.shared / "blacklist")
    return TrustSettings(keys, tuple(blacklists))


def _cache(reader: SettingReader) -> CacheSettings:
    configured = reader.path("CVMFS_CACHE_DIR")
    alien = reader.path("CVMFS_ALIEN_CACHE")
    base = reader.path("CVMFS_CACHE_BASE") or Path(PARAMETERS["CVMFS_CACHE_BASE"].default)
    private = configured or base / ("shared" if reader.boolean("CVMFS_SHARED_CACHE") else reader.fqrn)
    quota = reader.number("CVMFS_QUOTA_LIMIT", -1)
    watermark = reader.text("CVMFS_CATALOG_WATERMARK")
    return CacheSettings(
        directory=alien or private,
        workspace=reader.path("CVMFS_WORKSPACE") or private,
        alien=alien is not None,
        quota=None if quota < 0 or alien else quota * _MEGABYTE,
        metadata_memory=reader.number("CVMFS_MEMCACHE_SIZE") * _MEGABYTE,
        open_files=reader.number("CVMFS_NFILES", 1),
        open_catalogs=reader.number("CVMFS_CATALOG_WATERMARK", 1) if watermark else 256,
    )


def _revision(reader: SettingReader) -> RevisionSettings:
    root_hash = None
    if text := reader.text("CVMFS_ROOT_HASH"):
        try:
            root_hash = Digest.parse(text)
        except FormatError as error:
            raise reader.refusal("CVMFS_ROOT_HASH", f"is no digest: {error}") from error
    date = None
    if text := reader.text("CVMFS_REPOSITORY_DATE"):
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            raise reader.refusal("CVMFS_REPOSITORY_DATE", "is no date like 2026-01-31T12:00:00Z") from None
        date = date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    tag = reader.text("CVMFS_REPOSITORY_TAG")
    max_ttl = reader.number("CVMFS_MAX_TTL")
    return RevisionSettings(
        root_hash=root_hash,
        tag=tag,
        date=date,
        auto_update=reader.boolean("CVMFS_AUTO_UPDATE") and not (root_hash or tag or date),
        alternative_paths=reader.boolean("CVMFS_ALT_ROOT_PATH"),
        max_ttl=max_ttl * 60.0 if max_ttl else None,
    )


def _presentation(reader: SettingReader) -> PresentationSettings:
    visibility = reader.text("CVMFS_MAGIC_XATTRS_VISIBILITY").lower()
    if visibility not in {"rootonly", "always", "never"}:
        raise reader.refusal("CVMFS_MAGIC_XATTRS_VISIBILITY", "is none of rootonly, always, never")
    if reader.boolean("CVMFS_HIDE_MAGIC_XATTRS"):
        visibility = "never"
    try:
        gids = frozenset(int(word) for word in reader.words("CVMFS_XATTR_PRIVILEGED_GIDS", ","))
    except ValueError:
        raise reader.refusal("CVMFS_XATTR_PRIVILEGED_GIDS", "is no list of numbers") from None
    return PresentationSettings(
        claim_ownership=reader.boolean("CVMFS_CLAIM_OWNERSHIP"),
        check_permissions=reader.boolean("CVMFS_CHECK_PERMISSIONS"),
        world_readable=reader.boolean("CVMFS_WORLD_READABLE"),
        suid=reader.boolean("CVMFS_SUID"),
        uid_map=reader.path("CVMFS_UID_MAP"),
        gid_map=reader.path("CVMFS_GID_MAP"),
        magic_xattrs=visibility,
        protected_xattrs=frozenset(reader.words("CVMFS_XATTR_PROTECTED_XATTRS", ",")),
        privileged_gids=gids,
        variables=reader.exported,
    )
