"""Which server and which proxy to use, and what to do when one fails: a state machine without I/O.

Owns: every decision about the next request (CernVM-FS format reference, section 8.2): proxy groups,
load balancing and sharding, the chain of servers, burned proxies, retries with growing pauses, and the way
back to the first choice after a while. Must not know: sockets, HTTP, clocks (callers pass times, in
seconds on any clock), where randomness comes from.

Theory of operation. The machine's state, shared by all requests:

* ``groups`` of proxies; one group is the current one. In it some members are *burned*: they stand at the end
  of the list, and only the others are *live*.
* the current server.
* three times: since when another group than the first is current, since when the current group has burned
  members, since when another server than the first is current. Once one is old
  enough, the first choice is used again.

A ``Job`` is one request for one object. Its caller makes the first ``Attempt``; if that fails, it reports how
and gets the next one, or None if there is nothing left to try. What a failure leads to:

=================  =============================================================================
bad data           once more from the same place, past all HTTP caches; then as "host: HTTP"
transfer failures  pause and repeat, ``max_retries`` times; then as below (not after bad data)
host failures      next server, if this job has not tried all of them
proxy failures     burn that proxy; if this job has tried as many as there are, the next server,
                   beginning with the first proxy group again
=================  =============================================================================

A proxy is burned, and a server left, only if it is still in use when the failure is reported, so that many
requests that fail at once have the effect of one.
"""

import threading
from collections.abc import Sequence
from enum import Enum
from random import Random
from typing import NamedTuple

from cvmfs_graphdriver.client.network.proxies import Proxy, ProxyGroups
from cvmfs_graphdriver.client.network.sharding import Ring

__all__ = ["Attempt", "Failover", "Failure", "Job", "Policy", "classify_status"]


class Failure(Enum):
    """How an attempt failed; the text is for messages."""

    HOST_HTTP = "the server answers with an error"
    HOST_RESOLVE = "the server's name does not resolve"
    HOST_CONNECTION = "the server cannot be reached"
    HOST_TOO_SLOW = "the server is too slow"
    HOST_SHORT = "the server breaks off"
    PROXY_HTTP = "the proxy answers with an error"
    PROXY_RESOLVE = "the proxy's name does not resolve"
    PROXY_CONNECTION = "the proxy cannot be reached"
    PROXY_TOO_SLOW = "the proxy is too slow"
    PROXY_SHORT = "the proxy breaks off"
    BAD_DATA = "the bytes are wrong"


_TRANSFER = frozenset(
    {
        Failure.HOST_CONNECTION,
        Failure.HOST_TOO_SLOW,
        Failure.HOST_SHORT,
        Failure.PROXY_CONNECTION,
        Failure.PROXY_TOO_SLOW,
        Failure.PROXY_SHORT,
    }
)
_PROXY = frozenset(failure for failure in Failure if failure.name.startswith("PROXY"))


def classify_status(status: int, *, direct: bool, redirects: bool, proxy_error: bool) -> Failure | None:
    """What an HTTP status means, None if it is a success.

    ``direct``: no proxy was used; ``redirects``: they are followed, so one seen here is part of a loop;
    ``proxy_error``: a header says that the answer reports the proxy's own error.
    """
    if 200 <= status < 300:
        return None
    if status in {301, 302, 303, 307}:
        failure = Failure.HOST_CONNECTION if redirects else Failure.HOST_HTTP
    elif status >= 500 or status in {400, 404}:
        failure = Failure.HOST_HTTP
    elif status == 429:
        failure = Failure.HOST_CONNECTION
    else:
        failure = Failure.HOST_HTTP if direct else Failure.PROXY_HTTP
    if failure is Failure.HOST_HTTP and proxy_error and not direct:
        return Failure.PROXY_HTTP
    return failure


class Policy(NamedTuple):
    """Numbers that administrators choose; times in seconds."""

    proxy_reset_after: float = 300
    host_reset_after: float = 1800
    max_retries: int = 1
    backoff_init: float = 2
    backoff_max: float = 10
    shard: bool = False
    indefinitely: bool = False


class Attempt(NamedTuple):
    """What to try: after ``delay`` seconds, ``host`` through ``proxy``, with or without HTTP caches."""

    host: str
    proxy: Proxy
    no_cache: bool
    delay: float


class Failover:
    """The state that all requests share; safe for any number of threads."""

    def __init__(self, hosts: Sequence[str], proxies: ProxyGroups, policy: Policy, random: Random) -> None:
        self.policy = policy
        self.random = random
        self._lock = threading.RLock()
        self._group = self._burned = self._host = 0
        self._group_left: float | None = None
        self._burned_since: float | None = None
        self._host_left: float | None = None
        self.set_hosts(hosts)
        self.set_proxies(proxies)

    def job(self, key: int = 0, *, past_caches: bool = False) -> "Job":
        """Begin a request; ``key``, the first 32 bits of a digest, selects the proxy when sharding.

        With ``past_caches``, no HTTP cache may answer it.
        """
        return Job(self, key, past_caches=past_caches)

    # For administrators

    @property
    def hosts(self) -> tuple[str, ...]:
        """All servers, in the order in which they are tried."""
        with self._lock:
            return tuple(self._hosts)

    @property
    def current_host(self) -> int:
        """The number of the server in use."""
        with self._lock:
            return self._host

    @property
    def groups(self) -> ProxyGroups:
        """All proxy groups; burned members stand at the end of the current one."""
        with self._lock:
            return ProxyGroups(tuple(tuple(group) for group in self._groups), self._fallback)

    @property
    def current_group(self) -> int:
        """The number of the group in use."""
        with self._lock:
            return self._group

    @property
    def burned(self) -> int:
        """How many members of the current group are burned."""
        with self._lock:
            return self._burned

    @property
    def current_proxy(self) -> Proxy:
        """The proxy in use; with sharding, the one for objects whose key is 0."""
        with self._lock:
            return self._choice.find(0)

    def set_hosts(self, hosts: Sequence[str]) -> None:
        """Use these servers, beginning with the first."""
        with self._lock:
            self._hosts = list(hosts)
            self._host = 0
            self._host_left = None

    def switch_host(self, now: float) -> None:
        """Go on to the next server."""
        with self._lock:
            if len(self._hosts) > 1:
                self._host = (self._host + 1) % len(self._hosts)
                self._host_left = (self._host_left or now) if self._host else None

    def set_proxies(self, proxies: ProxyGroups) -> None:
        """Use these proxies, beginning with the first group."""
        with self._lock:
            self._groups = [list(group) for group in proxies.groups]
            self._fallback = proxies.fallback
            self.restart_groups()

    def update_proxies(self, proxies: ProxyGroups) -> None:
        """Use these proxies: the same groups with other addresses. The group in use stays in use."""
        with self._lock:
            self._groups = [list(group) for group in proxies.groups]
            self._fallback = proxies.fallback
            self._group = min(self._group, len(self._groups) - 1)
            self.rebalance()

    def switch_group(self, now: float) -> None:
        """Go on to the next proxy group."""
        with self._lock:
            self._next_group(now)
            self._choose()

    def rebalance(self) -> None:
        """Take back all burned members of the current group and choose anew."""
        with self._lock:
            self._burned = 0
            self._burned_since = None
            self._choose()

    # For jobs

    def choose(self, key: int, now: float) -> tuple[str, Proxy]:
        """The server and proxy to use now: the first choice again where it is time for that."""
        with self._lock:
            if self._expired(self._group_left, self.policy.proxy_reset_after, now):
                self.restart_groups()
            if self._expired(self._burned_since, self.policy.proxy_reset_after, now):
                self.rebalance()
            if self._expired(self._host_left, self.policy.host_reset_after, now):
                self._host = 0
                self._host_left = None
            return self._hosts[self._host], self._choice.find(key)

    def leave_host(self, host: str, now: float) -> None:
        """Go on to the next server if ``host`` is still in use."""
        with self._lock:
            if self._hosts[self._host] == host:
                self.switch_host(now)

    def burn(self, proxy: Proxy, now: float) -> None:
        """Stop using a proxy if it is live in the current group; after the last one, use the next group."""
        with self._lock:
            group = self._groups[self._group]
            live = len(group) - self._burned
            failed = [member for member in group[:live] if member.url == proxy.url]
            if not failed:
                return
            kept = [member for member in group[:live] if member.url != proxy.url]
            group[:live] = kept + failed
            self._burned += len(failed)
            if not kept:
                self._next_group(now)
            elif self._burned_since is None:
                self._burned_since = now
            self._choose()

    def restart_groups(self) -> None:
        """Start again with the first proxy group."""
        with self._lock:
            self._group = 0
            self._group_left = None
            self.rebalance()

    def _next_group(self, now: float) -> None:
        self._burned = 0
        self._burned_since = None
        if len(self._groups) > 1:
            self._group = (self._group + 1) % len(self._groups)
            self._group_left = (self._group_left or now) if self._group else None

    def _choose(self) -> None:
        group = self._groups[self._group]
        live = group[: len(group) - self._burned]
        self._choice = Ring(live if self.policy.shard else [self.random.choice(live)])

    @staticmethod
    def _expired(since: float | None, after: float, now: float) -> bool:
        return since is not None and after > 0 and since + after < now


class Job:
    """One request, for one thread; the parameters are those of ``Failover.job``."""

    def __init__(self, failover: Failover, key: int, *, past_caches: bool) -> None:
        self._failover = failover
        self._policy = failover.policy
        self._key = key
        self._past_caches = past_caches
        self._hosts_used = 1
        self._proxies_used = 1
        self._retries = 0
        self._backoff = 0.0
        self._had_bad_data = False

    def first(self, now: float) -> Attempt:
        """What to try first."""
        return self._next(now)

    def again(self, attempt: Attempt, now: float) -> Attempt:
        """``attempt``, which has not been made yet, by the server and the proxy that are in use now."""
        return self._next(now, attempt.delay)

    def failed(self, attempt: Attempt, failure: Failure, now: float) -> Attempt | None:
        """What to try after ``attempt`` failed, None if there is nothing left."""
        if failure is Failure.BAD_DATA:
            if not self._had_bad_data:
                self._had_bad_data = True
                return self._next(now)
            failure = Failure.HOST_HTTP
        if failure in _TRANSFER and not self._had_bad_data and self._retries < self._policy.max_retries:
            self._retries += 1
            return self._next(now, self._pause())
        moved = self._leave_proxy(attempt, now) if failure in _PROXY else self._leave_host(attempt, now)
        return self._next(now) if moved else None

    def _next(self, now: float, delay: float = 0.0) -> Attempt:
        host, proxy = self._failover.choose(self._key, now)
        return Attempt(host, proxy, self._past_caches or self._had_bad_data, delay)

    def _pause(self) -> float:
        first = self._failover.random.uniform(0, self._policy.backoff_init)
        self._backoff = min(2 * self._backoff or first, self._policy.backoff_max)
        return self._backoff

    def _leave_host(self, attempt: Attempt, now: float) -> bool:
        if self._hosts_used >= len(self._failover.hosts):
            return False
        self._failover.leave_host(attempt.host, now)
        self._hosts_used += 1
        return True

    def _leave_proxy(self, attempt: Attempt, now: float) -> bool:
        if self._proxies_used < self._failover.groups.size:
            self._failover.burn(attempt.proxy, now)
            self._proxies_used += 1
            return True
        self._proxies_used = 1
        if self._hosts_used < len(self._failover.hosts):
            self._failover.restart_groups()
            return self._leave_host(attempt, now)
        if self._policy.indefinitely:
            self._failover.burn(attempt.proxy, now)
        return self._policy.indefinitely
