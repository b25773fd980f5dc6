"""The status of a running client as one value.

Owns: collecting it from the parts of a client. Must not know: who reads it, in which form.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.client.addresses import shown_url
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.counters import LATENCY_BOUNDS, Count, SourceKind

__all__ = ["SourceStatus", "Status", "status_of"]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How many objects, and of which total size in bytes, came from one source."""

    kind: SourceKind
    name: str
    objects: int
    size: int


@dataclass(frozen=True, slots=True)
class Status:
    """Sizes in bytes, times in seconds; ``cache_limit`` is -1 for none, ``published`` a Unix time or 0."""

    fqrn: str
    version: str
    pid: int
    uptime: float
    mountpoint: str
    revision: int
    root_hash: str
    published: int
    offline: str
    """Why the last check for a new revision failed; empty if it succeeded."""
    whitelist_expires: int
    """When the whitelist expires, as a Unix time; 0 if it has not been seen yet."""
    whitelist_problem: str
    """What to tell people if it has expired or will soon; else empty."""
    avoided: str
    """The root catalog that is not shown because servers died of it; empty if there is none."""
    next_refresh: float
    """Seconds until the next check for a new revision; -1 if there is none."""
    host: str
    hosts: tuple[str, ...]
    proxy: str
    """Its name in the configuration."""
    proxy_address: str
    proxies: tuple[tuple[str, ...], ...]
    proxy_group: int
    """The index of the group in use, whose last ``burned_proxies`` members are burned."""
    burned_proxies: int
    cache_directory: str
    cache_used: int
    cache_pinned: int
    cache_limit: int
    cache_full: bool
    """Whether an object could not be stored lately because the disk is full."""
    open_catalogs: int
    entries: int
    last_io_error: int
    """When a user saw an error last, as a Unix time; 0 for never."""
    last_io_error_text: str
    """Which file it was about, and why it could not be had."""
    counters: dict[Count, int]
    failures: dict[str, int]
    """Failed attempts of transfers by kind."""
    sources: tuple[SourceStatus, ...]
    transfer_seconds: float
    latency_bounds: tuple[float, ...]
    latencies: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``as_json`` after serialisation. Raises ValueError: the text is something else."""
        value = json.loads(text)
        if not isinstance(value, dict) or value.keys() != {field.name for field in fields(cls)}:
            raise ValueError("the client has another version")
        value["proxies"] = tuple(tuple(group) for group in value["proxies"])
        for name in ("hosts", "latency_bounds", "latencies"):
            value[name] = tuple(value[name])
        value["counters"] = {Count(name): number for name, number in value["counters"].items()}
        value["sources"] = tuple(SourceStatus(**source) for source in value["sources"])
        return cls(**value)

    def as_json(self) -> dict[str, Any]:
        """A dictionary that JSON can represent."""
        return asdict(self)


def status_of(client: Client, mountpoint: str) -> Status:
    """The current status of a client. Raises RepositoryError, CacheError."""
    revision = client.current
    manifest = client.confirmed_manifest or (revision.manifest if revision else None)
    failover = client.transfer.failover
    groups = failover.groups
    quota = client.cache.eviction
    whitelist = client.manifests.whitelist
    used, pinned = quota.usage() if quota else (0, 0)
    return Status(
        fqrn=client.settings.fqrn,
        version=__version__,
        pid=os.getpid(),
        uptime=round(time.monotonic() - client.started, 3),
        mountpoint=mountpoint,
        revision=revision.number if revision else 0,
        root_hash=str(revision.root) if revision else "",
        published=manifest.timestamp if manifest else 0,
        offline=str(client.offline_because or ""),
        whitelist_expires=int(whitelist.expires.timestamp()) if whitelist.expires else 0,
        whitelist_problem=whitelist.problem,
        avoided=str(client.avoiding or ""),
        next_refresh=round(max(0.0, client.next_refresh - time.monotonic()), 3) if client.follows else -1,
        host=shown_url(failover.hosts[failover.current_host]),
        hosts=tuple(map(shown_url, failover.hosts)),
        proxy=failover.current_proxy.name,
        proxy_address=failover.current_proxy.address,
        proxies=tuple(tuple(proxy.address for proxy in group) for group in groups.groups),
        proxy_group=failover.current_group,
        burned_proxies=failover.burned,
        cache_directory=str(client.cache.directory),
        cache_used=used,
        cache_pinned=pinned,
        cache_limit=quota.limit if quota else -1,
        cache_full=client.cache.is_full,
        open_catalogs=len(client.catalogs.open_mounts()),
        entries=revision.statfs().files if revision else 0,
        last_io_error=int(client.counters.last_io_error),
        last_io_error_text=client.counters.last_io_error_text,
        counters=dict(client.counters.counts()),
        failures=dict(sorted(client.counters.failures().items())),
        sources=tuple(
            SourceStatus(source.kind, source.name, traffic.objects, traffic.size)
            for source, traffic in sorted(client.counters.traffic().items())
        ),
        transfer_seconds=round(client.counters.transfer_seconds, 6),
        latency_bounds=LATENCY_BOUNDS,
        latencies=client.counters.latencies,
    )
