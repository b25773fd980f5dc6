"""How a client is configured to reach servers.

Owns: the names and units of these settings. Must not know: which parameters they come from (``settings``), so
that a process that only transfers objects need not import what evaluates configuration files.
"""

from typing import NamedTuple

__all__ = ["NetworkSettings"]


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
