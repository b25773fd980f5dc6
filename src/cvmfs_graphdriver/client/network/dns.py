"""Host names to addresses, by the system's resolver or by asking one name server.

Owns: which of a name's addresses are used, and how long they are good for (CernVM-FS format reference,
section 8.1). Must not know: what the addresses are for.
"""

import ipaddress
import socket
import time
from contextlib import closing, suppress
from typing import NamedTuple

from cvmfs_graphdriver.client.addresses import place_of_nameserver
from cvmfs_graphdriver.client.configuration.network import NetworkSettings

__all__ = ["Addresses", "Resolver"]


class Addresses(NamedTuple):
    """The addresses of a name; none if it does not resolve. ``expires`` is a time of ``time.monotonic``."""

    found: tuple[str, ...]
    expires: float


class Resolver:
    """Resolves as configured; safe for any number of threads."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self.server = settings.dns_server
        """The name server to ask; empty for the system's resolver. May be changed at any time."""

    def resolve(self, name: str) -> Addresses:
        """The addresses of a host: those of the preferred family, or else all, up to the configured number.

        An address resolves to itself. A name that does not resolve is soon worth asking for again.
        """
        settings = self._settings
        with suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return Addresses((name.strip("[]"),), float("inf"))
        found, ttl = self._ask(name) if self.server else self._ask_system(name)
        ttl = max(settings.dns_min_ttl, min(ttl, settings.dns_max_ttl))
        preferred = tuple(a for a in found if ipaddress.ip_address(a).version == settings.prefer_ip_family)
        chosen = preferred or found
        if settings.max_addresses_per_proxy:
            chosen = chosen[: settings.max_addresses_per_proxy]
        return Addresses(chosen, time.monotonic() + ttl)

    def _ask_system(self, name: str) -> tuple[tuple[str, ...], float]:
        """The system does not say how long its answer is valid."""
        try:
            infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # ValueError: this cannot be a host name
            return (), 0.0
        addresses = dict.fromkeys(str(info[4][0]).partition("%")[0] for info in infos)
        return tuple(addresses), 0.0

    def _ask(self, name: str) -> tuple[tuple[str, ...], float]:
        """Ask the name server for both families at once."""
        import pycares  # few sites name a server of their own

        settings = self._settings
        address, port = place_of_nameserver(self.server)
        tries = 1 + settings.dns_retries
        records: list[pycares.DNSRecord] = []

        def note(result: pycares.DNSResult | None, _error: int | None) -> None:
            records.extend(result.answer if result else ())

        try:
            channel = pycares.Channel(
                flags=0, timeout=settings.dns_timeout, tries=tries, servers=[f"[{address}]:{port}"]
            )
            with closing(channel):
                for kind in (pycares.QUERY_TYPE_A, pycares.QUERY_TYPE_AAAA):
                    channel.query(name.rstrip("."), kind, callback=note)
                # c-ares waits longer for each try than for the one before; this is the end of all of them.
                channel.wait(2 * tries * settings.dns_timeout)
        except (pycares.AresError, ValueError):  # ValueError: this cannot be a host name
            return (), 0.0
        found = {
            record.data.addr: record.ttl
            for record in sorted(records, key=lambda record: record.type)
            if isinstance(record.data, pycares.ARecordData | pycares.AAAARecordData)
        }
        return tuple(found), min(found.values(), default=0.0)
