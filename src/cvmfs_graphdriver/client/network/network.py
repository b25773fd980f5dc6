"""The network as configured: proxies found out, names resolved, servers sorted, all put together.

Owns: the way from settings to a working ``Transfer`` (CernVM-FS format reference, sections 8.1 and 8.4).
Must not know: what is fetched.
"""

import logging
import math
import os
import time
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from cvmfs_graphdriver.client.addresses import host_of, is_address
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.errors import CacheError, ConfigurationError, TransferError
from cvmfs_graphdriver.client.network.dns import Resolver
from cvmfs_graphdriver.client.network.failover import Failover, Policy
from cvmfs_graphdriver.client.network.geo import SEPARATOR, geo_path, parse_order
from cvmfs_graphdriver.client.network.proxies import DIRECT, ProxyGroups, proxy_groups
from cvmfs_graphdriver.client.network.proxy_names import ProxyNames
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["Network", "client_identifier"]

_PAC_LIMIT = 256 * 1024
_GEO_LIMIT = 64 * 1024
_GEO_TRIES = 3
_IDENTIFIER_SIZE = 16
_WPAD = "http://wpad/wpad.dat"

_log = logging.getLogger(__name__)


class Network:
    """Servers and proxies of one repository. ``identifier`` tells this client from others."""

    proxies: str
    """The regular proxies as configured, or as set since."""
    fallback_proxies: str
    transfer: Transfer
    round_trips: dict[str, float]
    """Seconds that servers took to answer when they were probed; infinite for those that did not."""

    def __init__(self, settings: NetworkSettings, counters: Counters, identifier: str) -> None:
        self._settings = settings
        self._counters = counters
        self._identifier = identifier
        self._random = Random()  # noqa: S311 - it spreads load
        self._resolver = Resolver(settings)
        self._policy = Policy(
            proxy_reset_after=settings.proxy_reset_after,
            host_reset_after=settings.host_reset_after,
            max_retries=settings.max_retries,
            backoff_init=settings.backoff_init,
            backoff_max=settings.backoff_max,
            shard=settings.shard,
            indefinitely=settings.failover_indefinitely,
        )
        self.proxies, self.fallback_proxies = settings.proxies, settings.fallback_proxies
        self.round_trips = {}
        self._names = self._named(self.proxies, self.fallback_proxies)
        failover = Failover(settings.servers, self._names.groups, self._policy, self._random)
        self.transfer = Transfer(settings, failover, counters, self._poll, identifier)

    def set_proxies(self, regular: str, fallback: str) -> None:
        """Use other proxies from now on.

        Raises ConfigurationError: ``auto`` finds none, or something is no address.
        """
        self._names = self._named(regular, fallback)
        self.proxies, self.fallback_proxies = regular, fallback
        self.transfer.failover.set_proxies(self._names.groups)

    @property
    def nameserver(self) -> str:
        """The name server that is asked; empty for the system's way to resolve names."""
        return self._resolver.server

    @nameserver.setter
    def nameserver(self, place: str) -> None:
        self._resolver.server = place

    def _named(self, regular: str, fallback: str) -> ProxyNames:
        configured = proxy_groups(self._discovered(regular), fallback)
        for proxy in (proxy for group in configured.groups for proxy in group):
            if proxy != DIRECT and not is_address(proxy.url):
                raise ConfigurationError(
                    f"{proxy.name!r} is no address of a proxy, which looks like http://squid.example.org:3128"
                )
        return ProxyNames(configured, self._resolver.resolve, self._renamed)

    def sort_by_distance(self) -> bool:
        """Ask servers which of them is near, and use them in that order; says whether one answered."""
        failover = self.transfer.failover
        hosts, groups = failover.hosts, failover.groups
        spare = [group[0].name for group in groups.groups[groups.fallback :]]
        places = [*hosts, SEPARATOR, *spare] if spare else [*hosts]
        path = geo_path(self._asker(), places)
        for host in self._random.sample(hosts, min(_GEO_TRIES, len(hosts))):
            try:
                order = parse_order(self._ask(host, path), len(places))
            except (TransferError, RepositoryError, ValueError) as error:
                _log.info("%s does not sort servers by distance: %s", host, error)
                continue
            failover.set_hosts([places[index] for index in order if index < len(hosts)])
            nearer = [index - len(hosts) - 1 for index in order if index > len(hosts)]
            if nearer != sorted(nearer):
                lists = proxy_groups("", self.fallback_proxies).groups
                names = ("|".join(proxy.name for proxy in lists[index]) for index in nearer)
                self.set_proxies(self.proxies, ";".join(names))
            return True
        return False

    def probe(self) -> None:
        """Ask each server how long it takes to answer, and use the quickest first."""
        self.round_trips = {host: self._round_trip(host) for host in self.transfer.failover.hosts}
        self.transfer.failover.set_hosts(sorted(self.round_trips, key=self.round_trips.__getitem__))

    def _round_trip(self, host: str) -> float:
        started = time.monotonic()
        try:
            self._ask(host, ".cvmfspublished")
        except (TransferError, RepositoryError):
            return math.inf
        return time.monotonic() - started

    def close(self) -> None:
        """Close all connections."""
        self.transfer.close()

    def _ask(self, host: str, path: str) -> bytes:
        groups = self.transfer.failover.groups
        failover = Failover([host], groups, Policy(max_retries=0), self._random)
        transfer = Transfer(self._settings, failover, self._counters)
        try:
            return transfer.get(path, _GEO_LIMIT)
        finally:
            transfer.close()

    def _asker(self) -> str:
        """What distance is measured from: the proxy's name, which servers see, or this client."""
        if template := self._settings.proxy_template:
            return template
        groups = self.transfer.failover.groups
        proxy = self.transfer.failover.current_proxy
        regular = [member for group in groups.groups[: groups.fallback] for member in group]
        if proxy == DIRECT or proxy not in regular:
            return self._identifier
        return host_of(proxy.name) or self._identifier

    def _poll(self) -> None:
        self._names.poll()

    def _renamed(self, groups: ProxyGroups) -> None:
        # Proxies that administrators have replaced meanwhile do not come back.
        if groups is self._names.groups:
            self.transfer.failover.update_proxies(groups)

    # Proxies that configure themselves

    def _discovered(self, proxies: str) -> str:
        """The list with ``auto`` replaced by what the environment or a PAC file says."""
        parts = [part.strip() for part in proxies.split(";")]
        if "auto" not in parts:
            return proxies
        found = os.environ.get("http_proxy", "").strip() or self._from_files()
        kept = [found if part == "auto" else part for part in parts]
        result = ";".join(filter(None, kept))
        if not result:
            urls = "; ".join(self._settings.pac_urls) or _WPAD
            raise ConfigurationError(
                f"no proxy is found automatically, neither in http_proxy nor at {urls}; set CVMFS_HTTP_PROXY"
            )
        return result

    def _from_files(self) -> str:
        from cvmfs_graphdriver.client.pac.running import ScriptError  # few sites have such files

        for url in self._settings.pac_urls or ("auto",):
            address = _WPAD if url == "auto" else url
            try:
                if not is_address(address):
                    raise ValueError("it is no URL; correct CVMFS_PAC_URLS")
                return self._from_file(address)
            except (TransferError, RepositoryError, ScriptError, ValueError) as error:
                _log.warning("no proxy from %s: %s", address, error)
        return ""

    def _from_file(self, address: str) -> str:
        from cvmfs_graphdriver.client.pac.answer import find_proxies

        parts = urlsplit(address)
        path = f"{parts.path.lstrip('/')}{'?' if parts.query else ''}{parts.query}"
        direct = Failover([f"{parts.scheme}://{parts.netloc}"], proxy_groups(""), Policy(), self._random)
        transfer = Transfer(self._settings, direct, self._counters)
        try:
            source = transfer.get(path, _PAC_LIMIT).decode("utf-8", "replace")
        finally:
            transfer.close()
        server = self._settings.servers[0]
        return find_proxies(source, server, host_of(server), self._address)

    def _address(self, host: str) -> str | None:
        found = self._resolver.resolve(host).found
        return found[0] if found else None


def client_identifier(workspace: Path) -> str:
    """A name for this client that stays; made up at the first time. Raises CacheError."""
    path = workspace / "uuid"
    try:
        if path.exists():
            known = path.read_text(encoding="ascii").split()[0]
            if len(bytes.fromhex(known.replace("-", ""))) != _IDENTIFIER_SIZE:
                raise ValueError(known)
            return known
        import uuid  # once in the life of a cache

        identifier = str(uuid.uuid4())
        path.write_text(identifier + "\n", encoding="ascii")
    except (ValueError, IndexError):
        path.unlink(missing_ok=True)
        return client_identifier(workspace)
    except OSError as error:
        raise CacheError(f"cannot use {path}: {error.strerror}") from error
    return identifier
