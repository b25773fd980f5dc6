"""The state of running clients as metrics for Prometheus.

Owns: names and types of metrics (Prometheus' naming rules: base units, ``_total`` for counters). Must not
know: where a status comes from, how metrics are served.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from cvmfs_graphdriver.client.administration.status import Status
from cvmfs_graphdriver.client.counters import Count

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["metrics_text"]

_PREFIX = "cvmfs_graphdriver"


def _ratio(status: Status) -> float:
    hits, misses = status.counters[Count.HITS], status.counters[Count.MISSES]
    return hits / (hits + misses) if hits + misses else math.nan


_GAUGES: dict[str, tuple[str, Callable[[Status], float]]] = {
    "revision": ("Mounted revision", lambda status: status.revision),
    "published_timestamp_seconds": ("Publication time of that revision", lambda status: status.published),
    "revision_age_seconds": (
        "Seconds since that revision was published",
        lambda status: max(0.0, time.time() - status.published) if status.published else math.nan,
    ),
    "whitelist_expires_timestamp_seconds": (
        "When the repository's whitelist expires",
        lambda status: status.whitelist_expires or math.nan,
    ),
    "cache_hit_ratio": ("Share of requested objects that were in the cache", _ratio),
    "uptime_seconds": ("Seconds since the client started", lambda status: status.uptime),
    "offline": ("Whether the last check for a new revision failed", lambda status: bool(status.offline)),
    "last_io_error_timestamp_seconds": (
        "When a user saw an error last, 0 for never",
        lambda status: status.last_io_error,
    ),
    "cache_used_bytes": ("Bytes in the cache", lambda status: status.cache_used),
    "cache_pinned_bytes": ("Pinned bytes in the cache", lambda status: status.cache_pinned),
    "cache_limit_bytes": (
        "Maximum size of the cache in bytes, -1 for no limit",
        lambda status: status.cache_limit,
    ),
    "open_catalogs": ("Open catalogs", lambda status: status.open_catalogs),
    "entries": ("Entries in all catalogs", lambda status: status.entries),
    "burned_proxies": ("Proxies not in use because they failed", lambda status: status.burned_proxies),
}
_COUNTERS = {
    "cache_hits": ("Objects found in the cache", Count.HITS),
    "cache_misses": ("Objects not found in the cache", Count.MISSES),
    "downloads": ("Successful transfers", Count.DOWNLOADS),
    "received_bytes": ("Bytes received", Count.BYTES_RECEIVED),
    "opens": ("Files opened", Count.OPENS),
    "directory_opens": ("Directories opened", Count.DIRECTORY_OPENS),
    "io_errors": ("Errors that users saw", Count.IO_ERRORS),
    "cache_full": ("Objects that a full disk kept out of the cache", Count.CACHE_FULL),
}


def metrics_text(statuses: Iterable[Status]) -> bytes:
    """All metrics of these clients, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Clients(list(statuses)))
    return generate_latest(registry)


class _Clients(Collector):
    """Collects the metrics of clients; each has the label ``repository``."""

    def __init__(self, statuses: list[Status]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator["Metric"]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._choices()
        latency = HistogramMetricFamily(
            f"{_PREFIX}_download_seconds", "Duration of successful transfers", labels=["repository"]
        )
        for status in self._statuses:
            total = 0
            buckets = []
            bounds = [*(f"{bound:g}" for bound in status.latency_bounds), "+Inf"]
            for bound, count in zip(bounds, status.latencies, strict=True):
                total += count
                buckets.append((bound, float(total)))
            latency.add_metric([status.fqrn], buckets, status.transfer_seconds)
        yield latency

    def _gauges(self) -> Iterator["Metric"]:
        for name, (meaning, value) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", meaning, labels=["repository"])
            for status in self._statuses:
                gauge.add_metric([status.fqrn], float(value(status)))
            yield gauge

    def _counters(self) -> Iterator["Metric"]:
        for name, (meaning, count) in _COUNTERS.items():
            counter = CounterMetricFamily(f"{_PREFIX}_{name}", meaning, labels=["repository"])
            for status in self._statuses:
                counter.add_metric([status.fqrn], float(status.counters[count]))
            yield counter
        failures = CounterMetricFamily(
            f"{_PREFIX}_transfer_failures", "Failed attempts of transfers", labels=["repository", "kind"]
        )
        for status in self._statuses:
            for kind, number in status.failures.items():
                failures.add_metric([status.fqrn, kind], float(number))
        yield failures
        yield from self._sources()

    def _sources(self) -> Iterator["Metric"]:
        """How much came from the cache, through each proxy, and directly from each server."""
        labels = ["repository", "source", "via"]
        objects = CounterMetricFamily(f"{_PREFIX}_source_objects", "Objects by source", labels=labels)
        size = CounterMetricFamily(f"{_PREFIX}_source_bytes", "Bytes by source", labels=labels)
        for status in self._statuses:
            for source in status.sources:
                values = [status.fqrn, source.kind, source.name]
                objects.add_metric(values, float(source.objects))
                size.add_metric(values, float(source.size))
        yield objects
        yield size

    def _choices(self) -> Iterator["Metric"]:
        """1 for the server and the proxy in use, and for burned proxies, 0 for others."""
        hosts = GaugeMetricFamily(f"{_PREFIX}_host_active", "Servers", labels=["repository", "host"])
        proxies = GaugeMetricFamily(
            f"{_PREFIX}_proxy_active", "Proxies by address", labels=["repository", "group", "proxy"]
        )
        burned = GaugeMetricFamily(
            f"{_PREFIX}_proxy_burned", "Proxies that failed", labels=["repository", "group", "proxy"]
        )
        for status in self._statuses:
            for host in dict.fromkeys(status.hosts):
                hosts.add_metric([status.fqrn, host], float(host == status.host))
            seen = set()
            for number, group in enumerate(status.proxies):
                live = len(group) - (status.burned_proxies if number == status.proxy_group else 0)
                for place, proxy in enumerate(group):
                    if (number, proxy) not in seen:
                        seen.add((number, proxy))
                        active = proxy == status.proxy_address
                        proxies.add_metric([status.fqrn, str(number), proxy], float(active))
                        burned.add_metric([status.fqrn, str(number), proxy], float(place >= live))
        yield hosts
        yield proxies
        yield burned
