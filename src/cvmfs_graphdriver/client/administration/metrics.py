"""The state of running clients as metrics for Prometheus.

Owns: names and kinds of metrics (Prometheus' rules for naming: base units, ``_total`` for what only grows).
Must not know: where a status comes from, how metrics are served.
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
    "revision": ("Revision that is mounted", lambda status: status.revision),
    "published_timestamp_seconds": ("When that revision was published", lambda status: status.published),
    "revision_age_seconds": (
        "Seconds since that revision was published",
        lambda status: max(0.0, time.time() - status.published) if status.published else math.nan,
    ),
    "cache_hit_ratio": ("Objects found in the cache of all that were wanted", _ratio),
    "uptime_seconds": ("Seconds since the client began", lambda status: status.uptime),
    "offline": ("Whether servers cannot be asked or believed", lambda status: bool(status.offline)),
    "cache_used_bytes": ("Bytes in the cache", lambda status: status.cache_used),
    "cache_pinned_bytes": ("Bytes in the cache that stay", lambda status: status.cache_pinned),
    "cache_limit_bytes": (
        "Bytes that the cache may hold, -1 for no limit",
        lambda status: status.cache_limit,
    ),
    "open_catalogs": ("Catalogs that are open", lambda status: status.open_catalogs),
    "entries": ("Entries of all catalogs", lambda status: status.entries),
    "burned_proxies": ("Proxies out of use", lambda status: status.burned_proxies),
}
_COUNTERS = {
    "cache_hits": ("Objects found in the cache", Count.HITS),
    "cache_misses": ("Objects not found in the cache", Count.MISSES),
    "downloads": ("Transfers that succeeded", Count.DOWNLOADS),
    "received_bytes": ("Bytes received", Count.BYTES_RECEIVED),
    "opens": ("Files opened", Count.OPENS),
    "directory_opens": ("Directories opened", Count.DIRECTORY_OPENS),
    "io_errors": ("Errors that users saw", Count.IO_ERRORS),
}


def metrics_text(statuses: Iterable[Status]) -> bytes:
    """All metrics of these clients, in Prometheus' text form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Clients(list(statuses)))
    return generate_latest(registry)


class _Clients(Collector):
    """Gives the metrics of clients; each has the label ``repository``."""

    def __init__(self, statuses: list[Status]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator["Metric"]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._choices()
        latency = HistogramMetricFamily(
            f"{_PREFIX}_download_seconds", "How long successful transfers took", labels=["repository"]
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
            f"{_PREFIX}_transfer_failures", "Attempts of transfers that failed", labels=["repository", "kind"]
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
        """Which server and which proxy are in use, and which proxies are burned: 1, others 0."""
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
