"""The network as configured: proxies found, names resolved, servers sorted, all put together.

Owns: the way from settings to a working ``Transfer`` (CernVM-FS format reference, sections 8.1 and 8.4).
Must not know: what is fetched.
"""

import logging
import math
import time
from pathlib import Path
from random import Random

from cvmfs_graphdriver.client.addresses import host_of, shown_url
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.counters import ClientCounters
from cvmfs_graphdriver.client.errors import CacheError, TransferError
from cvmfs_graphdriver.client.network.discovery import find_groups
from cvmfs_graphdriver.client.network.dns import Resolver
from cvmfs_graphdriver.client.network.failover import Failover, Policy
from cvmfs_graphdriver.client.network.geo import SEPARATOR, geo_path, parse_order
from cvmfs_graphdriver.client.network.proxies import DIRECT, ProxyGroups, proxy_groups
from cvmfs_graphdriver.client.network.proxy_names import ProxyNames
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.kernel.whole_file import write_whole_file
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["Network", "client_identifier"]

_GEO_LIMIT = 64 * 1024
_GEO_TRIES = 3
_IDENTIFIER_SIZE = 16

_log = logging.getLogger(__name__)


class Network:
    """Servers and proxies of one repository. ``identifier`` distinguishes this client from others."""

    proxies: str
    """The regular proxies as configured, or as set since."""
    fallback_proxies: str
    transfer: Transfer
    round_trips: dict[str, float]
    """Seconds that each server took to answer when it was probed; infinite if it did not answer."""

    def __init__(self, settings: NetworkSettings, counters: ClientCounters, identifier: str) -> None:
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
        """Use these proxies from now on.

        Raises ConfigurationError: ``auto`` finds none, or a proxy is not a valid URL.
        """
        self._names = self._named(regular, fallback)
        self.proxies, self.fallback_proxies = regular, fallback
        self.transfer.failover.set_proxies(self._names.groups)

    @property
    def nameserver(self) -> str:
        """The name server that is asked; empty for the system's resolver."""
        return self._resolver.server

    @nameserver.setter
    def nameserver(self, place: str) -> None:
        self._resolver.server = place

    def _named(self, regular: str, fallback: str) -> ProxyNames:
        configured = find_groups(regular, fallback, self._settings, self._counters)
        return ProxyNames(configured, self._resolver.resolve, self._renamed)

    def sort_by_distance(self) -> bool:
        """Ask a server which of them are near, and use them in that order; returns whether one answered."""
        failover = self.transfer.failover
        hosts, groups = failover.hosts, failover.groups
        spare = [group[0].name for group in groups.groups[groups.fallback :]]
        places = [*hosts, SEPARATOR, *spare] if spare else [*hosts]
        path = geo_path(self._asker(), places)
        for host in self._random.sample(hosts, min(_GEO_TRIES, len(hosts))):
            try:
                order = parse_order(self._ask(host, path), len(places))
            except (TransferError, RepositoryError, ValueError) as error:
                _log.info("%s did not sort servers by distance: %s", shown_url(host), error)
                continue
            failover.set_hosts([places[index] for index in order if index < len(hosts)])
            nearer = [index - len(hosts) - 1 for index in order if index > len(hosts)]
            if nearer != sorted(nearer):
                lists = proxy_groups("", self.fallback_proxies).groups
                names = ("|".join(proxy.url for proxy in lists[index]) for index in nearer)
                self.set_proxies(self.proxies, ";".join(names))
            return True
        return False

    def probe(self) -> None:
        """Measure how long each server takes to answer, and use the fastest first."""
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
        """Where distance is measured from: the proxy, since servers see its address, or this client."""
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
        # Proxies that an administrator has replaced in the meantime do not come back.
        if groups is self._names.groups:
            self.transfer.failover.update_proxies(groups)


def client_identifier(workspace: Path) -> str:
    """A lasting identifier of this client, generated on first use. Raises CacheError."""
    path = workspace / "uuid"
    try:
        if path.exists():
            known = path.read_text(encoding="ascii").split()[0]
            if len(bytes.fromhex(known.replace("-", ""))) != _IDENTIFIER_SIZE:
                raise ValueError(known)
            return known
        import uuid  # needed once in the life of a cache

        identifier = str(uuid.uuid4())
        write_whole_file(path, f"{identifier}\n".encode())
    except (ValueError, IndexError):
        path.unlink(missing_ok=True)
        return client_identifier(workspace)
    except OSError as error:
        raise CacheError(f"cannot use {path}: {error.strerror}") from error
    return identifier
