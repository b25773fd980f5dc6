"""Proxies by address: each address of a proxy's name is a proxy of its own.

Owns: replacing names by addresses, and doing so again when they may have changed (CernVM-FS format
reference, section 8.1). Must not know: how names are resolved, which proxy is in use.
"""

import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from cvmfs_graphdriver.client.addresses import host_of
from cvmfs_graphdriver.client.network.dns import Addresses
from cvmfs_graphdriver.client.network.proxies import DIRECT, Groups, Proxy, ProxyGroups

__all__ = ["ProxyNames"]


class ProxyNames:
    """The proxies of one repository, by name as configured and by address as they are now.

    ``changed`` is called with the new groups when addresses have changed.
    """

    def __init__(
        self,
        configured: ProxyGroups,
        resolve: Callable[[str], Addresses],
        changed: Callable[[ProxyGroups], None],
    ) -> None:
        self._configured = configured
        self._resolve = resolve
        self._changed = changed
        self._lock = threading.Lock()
        self._known: dict[str, Addresses] = {}
        self._refreshing = False
        self._shown = self._expanded()

    @property
    def groups(self) -> ProxyGroups:
        """The groups by address."""
        return self._shown

    def poll(self) -> None:
        """Start resolving names again if any has expired; does not wait for the result."""
        now = time.monotonic()
        with self._lock:
            if self._refreshing or all(known.expires > now for known in self._known.values()):
                return
            self._refreshing = True
        threading.Thread(target=self._refresh, name="proxy names", daemon=True).start()

    def _refresh(self) -> None:
        try:
            groups = self._expanded()
            if groups != self._shown:
                self._shown = groups
                self._changed(groups)
        finally:
            with self._lock:
                self._refreshing = False

    def _expanded(self) -> ProxyGroups:
        groups: Groups = tuple(
            tuple(member for proxy in group for member in self._members(proxy))
            for group in self._configured.groups
        )
        return ProxyGroups(groups, self._configured.fallback)

    def _members(self, proxy: Proxy) -> tuple[Proxy, ...]:
        """One proxy per address; the proxy itself, which will fail, if its name does not resolve."""
        name = host_of(proxy.url)
        # A certificate is for a name, not for an address.
        if proxy == DIRECT or not proxy.url.lower().startswith("http:") or not name:
            return (proxy,)
        known = self._known.get(name)
        if known is None or known.expires <= time.monotonic():
            fresh = self._resolve(name)
            # A name server that is down for a moment does not make a proxy's addresses wrong.
            known = Addresses(fresh.found or (known.found if known else ()), fresh.expires)
            self._known[name] = known
        return tuple(_with_address(proxy, address) for address in known.found) or (proxy,)


def _with_address(proxy: Proxy, address: str) -> Proxy:
    parts = urlsplit(proxy.url)
    user, at, place = parts.netloc.rpartition("@")
    port = place.rpartition("]")[2].partition(":")[2]
    host = f"[{address}]" if ":" in address else address
    netloc = f"{user}{at}{host}{f':{port}' if port else ''}"
    return Proxy(urlunsplit(parts._replace(netloc=netloc)), proxy.name)
