"""The network as configured: proxies found out, names resolved, the state machine set up.

Owns: the way from settings to a working ``Transfer``. Must not know: what is fetched.
"""

from random import Random

from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.failover import Failover, Policy
from cvmfs_graphdriver.client.proxies import proxy_groups
from cvmfs_graphdriver.client.settings import NetworkSettings
from cvmfs_graphdriver.client.transfer import Transfer

__all__ = ["open_transfer"]


def open_transfer(settings: NetworkSettings, counters: Counters) -> Transfer:
    """A transfer as the settings say."""
    policy = Policy(
        proxy_reset_after=settings.proxy_reset_after,
        host_reset_after=settings.host_reset_after,
        max_retries=settings.max_retries,
        backoff_init=settings.backoff_init,
        backoff_max=settings.backoff_max,
        shard=settings.shard,
        indefinitely=settings.failover_indefinitely,
    )
    proxies = proxy_groups(settings.proxies, settings.fallback_proxies)
    failover = Failover(settings.servers, proxies, policy, Random())  # noqa: S311 - it spreads load
    return Transfer(settings, failover, counters)
