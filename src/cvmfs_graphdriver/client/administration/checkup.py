"""Checks everything that a repository needs, and says how to fix what is wrong.

Owns: the checks in the order an administrator would make them: configuration, cache, proxies, servers, clock,
trust. Must not know: the kernel, how findings are presented.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from cvmfs_graphdriver.client.addresses import host_of, shown_url
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.config_repository import fetched_config_repository
from cvmfs_graphdriver.client.configuration.meaning import settings_of
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.configuration.search import Configuration, load_configuration
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.configuration.unknown import unknown_parameters
from cvmfs_graphdriver.client.counters import ClientCounters
from cvmfs_graphdriver.client.network.dns import Resolver
from cvmfs_graphdriver.client.network.network import Network
from cvmfs_graphdriver.client.network.proxies import DIRECT
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist

__all__ = ["Finding", "Level", "check_repository"]

_LIMIT = 1024 * 1024
_SKEW = timedelta(hours=1)
_MEGABYTE = 1024 * 1024


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do if it is not good."""

    level: Level
    what: str
    remedy: str = ""


def check_repository(
    fqrn: str, etc: Path, overrides: Mapping[str, str] | None = None, now: datetime | None = None
) -> Iterator[Finding]:
    """Check everything that ``fqrn`` needs; stops where later checks would make no sense.

    Nothing is changed: what is fetched goes to a directory that is removed.
    """
    with TemporaryDirectory(prefix="cvmfs-check-") as scratch:
        yield from _check_all(fqrn, etc, overrides or {}, now or datetime.now(UTC), Path(scratch))


def _check_all(
    fqrn: str, etc: Path, overrides: Mapping[str, str], now: datetime, scratch: Path
) -> Iterator[Finding]:
    elsewhere = {**overrides, "CVMFS_CACHE_BASE": str(scratch)}
    try:
        configuration = load_configuration(fqrn, etc, overrides, fetched_config_repository(etc, elsewhere))
        yield from _check_files(configuration, etc)
        settings = settings_of(configuration, etc)
    except CvmfsGraphdriverError as error:
        yield Finding(Level.ERROR, str(error))
        return
    yield from _check_presentation(settings)
    yield from _check_cache(settings)
    yield from _check_proxies(settings)
    yield from _check_servers(settings, now)
    cache = settings.cache._replace(directory=scratch, workspace=scratch, alien=False)
    yield from _check_trust(settings._replace(cache=cache))


def _check_files(configuration: Configuration, etc: Path) -> Iterator[Finding]:
    if not configuration.files:
        yield Finding(Level.WARNING, f"there are no configuration files in {etc}")
    for path in configuration.files:
        yield Finding(Level.OK, f"{path} is read")
    for ignored in configuration.ignored:
        yield Finding(Level.WARNING, str(ignored), f"set it in {etc}/default.local if you want it")
    for unknown in unknown_parameters(configuration):
        where = f"{unknown.name} ({unknown.setting.origin})"
        if unknown.elsewhere:
            yield Finding(Level.OK, f"{where} has no effect on this client")
        else:
            remedy = f"did you mean {unknown.meant}?" if unknown.meant else "remove it"
            yield Finding(Level.WARNING, f"{where} is not a known parameter", remedy)


def _check_presentation(settings: RepositorySettings) -> Iterator[Finding]:
    if settings.presentation.claim_ownership:
        yield Finding(
            Level.WARNING,
            "CVMFS_CLAIM_OWNERSHIP is set: files in containers lose their owners, setuid bits their effect",
            "set CVMFS_CLAIM_OWNERSHIP=no",
        )


def _check_cache(settings: RepositorySettings) -> Iterator[Finding]:
    directory = settings.cache.directory
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(Level.ERROR, f"{there} is not writable", "run as root, or set CVMFS_CACHE_BASE")
        return
    free = shutil.disk_usage(there).free
    quota = settings.cache.quota
    used = sum(path.stat().st_size for path in directory.glob("[0-9a-f][0-9a-f]/*"))
    room = f"{free // _MEGABYTE} MB free, {used // _MEGABYTE} MB used"
    if quota is None:
        yield Finding(Level.OK, f"the cache {directory} has no limit ({room})")
    elif quota > free + used:
        wanted = f"it may grow to {quota // _MEGABYTE} MB"
        yield Finding(
            Level.WARNING,
            f"the cache {directory} is short of space: {wanted} ({room})",
            "lower CVMFS_QUOTA_LIMIT",
        )
    else:
        yield Finding(Level.OK, f"the cache {directory} may grow to {quota // _MEGABYTE} MB ({room})")


def _check_proxies(settings: RepositorySettings) -> Iterator[Finding]:
    try:
        network = Network(settings.network, ClientCounters(), "")
    except CvmfsGraphdriverError as error:
        yield Finding(Level.ERROR, str(error))
        return
    groups = network.transfer.failover.groups.groups
    network.close()
    resolver = Resolver(settings.network)
    for name in dict.fromkeys(proxy.name for group in groups for proxy in group):
        if name == DIRECT.name:
            yield Finding(Level.OK, "no proxy is used (DIRECT)")
            continue
        found = resolver.resolve(host_of(name)).found
        if found:
            yield Finding(Level.OK, f"the proxy {name} resolves to {', '.join(found)}")
        else:
            yield Finding(
                Level.ERROR, f"the proxy {name} does not resolve", "correct CVMFS_HTTP_PROXY or DNS"
            )


def _check_servers(settings: RepositorySettings, now: datetime) -> Iterator[Finding]:
    """Each server by itself, through the configured proxies."""
    newest = 0
    for server in settings.network.servers:
        network = Network(_only(settings, server), ClientCounters(), "")
        try:
            manifest = Manifest.parse(Letter.parse(network.transfer.get(".cvmfspublished", _LIMIT)).body)
            whitelist = Whitelist.parse(Letter.parse(network.transfer.get(".cvmfswhitelist", _LIMIT)).body)
        except FormatError as error:
            yield Finding(
                Level.ERROR,
                f"{shown_url(server)} sends invalid data: {error}",
                "is there a login page in between?",
            )
            continue
        except CvmfsGraphdriverError as error:
            yield Finding(Level.ERROR, str(error), "check CVMFS_SERVER_URL, the proxies and the firewall")
            continue
        finally:
            network.close()
        published = datetime.fromtimestamp(min(manifest.timestamp, 2**33), UTC)
        yield Finding(
            Level.OK,
            f"{shown_url(server)} has revision {manifest.revision} of {published:%Y-%m-%d %H:%M} UTC",
        )
        if newest > manifest.revision:
            yield Finding(Level.WARNING, f"{shown_url(server)} is outdated: others have revision {newest}")
        newest = max(newest, manifest.revision)
        yield from _check_dates(shown_url(server), published, whitelist, now)


def _check_dates(server: str, published: datetime, whitelist: Whitelist, now: datetime) -> Iterator[Finding]:
    if max(published, whitelist.created) > now + _SKEW:
        yield Finding(
            Level.ERROR,
            f"the content of {server} was published in the future: the clock of this machine is wrong",
            "set the clock (NTP)",
        )
    if problem := whitelist.problem(now):
        level = Level.ERROR if whitelist.expired(now) else Level.WARNING
        yield Finding(level, f"{server}: {problem}", "notify the owner of the repository")


def _check_trust(settings: RepositorySettings) -> Iterator[Finding]:
    remedy = "check the servers above, and CVMFS_PUBLIC_KEY or CVMFS_KEYS_DIR"
    for path in settings.trust.public_keys:
        yield Finding(Level.OK, f"the public key {path} is used")
    try:
        client = Client(settings)
    except CvmfsGraphdriverError as error:
        yield Finding(Level.ERROR, str(error), remedy)
        return
    try:
        manifest = client.manifests.newest()
        membership = client.mount().membership
    except CvmfsGraphdriverError as error:
        yield Finding(Level.ERROR, str(error), remedy)
        return
    finally:
        client.close()
    yield Finding(Level.OK, f"revision {manifest.revision} is verified")
    if membership is not None:
        yield Finding(
            Level.WARNING,
            f"{settings.fqrn} demands a membership ({membership[:200]!r}): only root can read it here, since "
            "helpers that prove memberships (CVMFS_AUTHZ_HELPER) are not supported",
        )


def _only(settings: RepositorySettings, server: str) -> NetworkSettings:
    return settings.network._replace(servers=(server,))
