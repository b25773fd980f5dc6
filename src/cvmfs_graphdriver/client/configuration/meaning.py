"""What the parameters of a repository mean: from an evaluated configuration to settings.

Owns: the parameters' units, limits and dependencies on each other (CernVM-FS format reference, section 7.2).
Must not know: how files are found and evaluated (``search``), nor what anybody does with a setting.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from cvmfs_graphdriver.client.addresses import is_address, place_of_nameserver, shown_url
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.configuration.operation import operation_of
from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.configuration.reader import SettingReader
from cvmfs_graphdriver.client.configuration.search import Configuration, files_ending
from cvmfs_graphdriver.client.configuration.settings import (
    CacheSettings,
    PresentationSettings,
    RepositorySettings,
    RevisionSettings,
    TrustSettings,
)
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["settings_of"]

_MEGABYTE = 1024 * 1024


def settings_of(configuration: Configuration, etc: Path) -> RepositorySettings:
    """Interpret an evaluated configuration.

    Raises ConfigurationError: a value is invalid, or a mandatory parameter is missing.
    """
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
        shown = shown_url(server)
        if not re.match(r"(https?|file)://", server):
            raise reader.refusal(name, f"names {shown!r}, which is not an http://, https:// or file:// URL")
        if not is_address(server):
            raise reader.refusal(name, f"names {shown!r}, which is not a valid URL: it has an odd character")
    if reader.text(limit):
        servers = servers[: reader.number(limit, 1)]
    return tuple(server.rstrip("/") for server in servers)


def _network(reader: SettingReader, etc: Path) -> NetworkSettings:
    servers = _servers(reader, "CVMFS_SERVER_URL", "CVMFS_MAX_SERVERS")
    if not servers:
        raise ConfigurationError(
            f"{reader.fqrn}: no server is configured; set CVMFS_SERVER_URL, for example in "
            f"{etc}/config.d/{reader.fqrn}.conf"
        )
    proxies = reader.text("CVMFS_HTTP_PROXY")
    if not proxies:
        if reader.text("CVMFS_CLIENT_PROFILE") != "single":
            raise ConfigurationError(
                f"{reader.fqrn}: no proxy is configured; set CVMFS_HTTP_PROXY in {etc}/default.local "
                f"(DIRECT for no proxy)"
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
        raise reader.refusal("CVMFS_IPFAMILY_PREFER", "must be 4 or 6")
    return NetworkSettings(
        servers=servers,
        proxies=proxies,
        fallback_proxies=reader.text(f"CVMFS_{kind}FALLBACK_PROXY"),
        pac_urls=reader.words("CVMFS_PAC_URLS", ";"),
        shard=reader.boolean("CVMFS_PROXY_SHARD"),
        proxy_reset_after=reader.seconds("CVMFS_PROXY_RESET_AFTER"),
        host_reset_after=reader.seconds("CVMFS_HOST_RESET_AFTER"),
        timeout=_timeout(reader, f"CVMFS_{kind}TIMEOUT", "CVMFS_TIMEOUT"),
        timeout_direct=_timeout(reader, f"CVMFS_{kind}TIMEOUT_DIRECT", "CVMFS_TIMEOUT_DIRECT"),
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


def _timeout(reader: SettingReader, own: str, general: str) -> float:
    """A timeout; that of external servers is by default that of the others."""
    return reader.seconds(own if reader.text(own) else general)


def _nameserver(reader: SettingReader) -> str:
    place = reader.text("CVMFS_DNS_SERVER")
    try:
        _ = place and place_of_nameserver(place)
    except ValueError:
        raise reader.refusal(
            "CVMFS_DNS_SERVER", "is not an address, such as 192.0.2.1 or [2001:db8::1]:53"
        ) from None
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
            raise reader.refusal("CVMFS_ROOT_HASH", f"is not a digest: {error}") from error
    date = None
    if text := reader.text("CVMFS_REPOSITORY_DATE"):
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            raise reader.refusal(
                "CVMFS_REPOSITORY_DATE", "is not a date, such as 2026-01-31T12:00:00Z"
            ) from None
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
        raise reader.refusal("CVMFS_MAGIC_XATTRS_VISIBILITY", "must be rootonly, always or never")
    if reader.boolean("CVMFS_HIDE_MAGIC_XATTRS"):
        visibility = "never"
    try:
        gids = frozenset(int(word) for word in reader.words("CVMFS_XATTR_PRIVILEGED_GIDS", ","))
    except ValueError:
        raise reader.refusal("CVMFS_XATTR_PRIVILEGED_GIDS", "is not a list of numbers") from None
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
