"""Host names to addresses, by the system's resolver or by asking one name server.

Owns: DNS messages as far as a question for addresses needs them (RFC 1035, sections 4.1 and 4.1.4; RFC 3596
for AAAA), and how long an answer is good for (CernVM-FS format reference, section 8.1). Must not know: what
the addresses are for.
"""

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cvmfs_graphdriver.client.addresses import place_of_nameserver
from cvmfs_graphdriver.client.configuration.network import NetworkSettings

__all__ = ["Addresses", "Resolver", "decode_answer", "encode_question"]

_DATAGRAM = 4096
_A, _AAAA, _IN = 1, 28, 1
_RECURSION_DESIRED = 0x0100
_RESPONSE, _TRUNCATED, _CODE = 0x8000, 0x0200, 0x000F
_POINTER = 0xC0


class Addresses(NamedTuple):
    """What a name stands for; none if it does not resolve. ``expires`` on the clock ``time.monotonic``."""

    found: tuple[str, ...]
    expires: float


class Resolver:
    """Resolves as the settings say; safe for any number of threads."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self.server = settings.dns_server
        """The name server to ask; empty for the system's way. May be changed at any time."""

    def resolve(self, name: str) -> Addresses:
        """The addresses of a host: those of the preferred family, or else all; at most so many as are wanted.

        An address is its own name. A name that does not resolve is worth asking for again soon.
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
        """The system does not say how long its answer is good."""
        try:
            infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # ValueError: this can be no host name
            return (), 0.0
        addresses = dict.fromkeys(str(info[4][0]).partition("%")[0] for info in infos)
        return tuple(addresses), 0.0

    def _ask(self, name: str) -> tuple[tuple[str, ...], float]:
        found: list[str] = []
        ttls: list[float] = []
        for kind in (_A, _AAAA):
            for address, ttl in self._query(name, kind):
                found.append(address)
                ttls.append(ttl)
        return tuple(dict.fromkeys(found)), min(ttls, default=0.0)

    def _query(self, name: str, kind: int) -> list[tuple[str, int]]:
        settings = self._settings
        server = place_of_nameserver(self.server)
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        for _ in range(1 + settings.dns_retries):
            number = int.from_bytes(os.urandom(2), "big")
            with suppress(OSError, ValueError), socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(settings.dns_timeout)
                sock.connect(server)
                sock.send(encode_question(number, name, kind))
                return decode_answer(sock.recv(_DATAGRAM), number, kind)
        return []


def encode_question(number: int, name: str, kind: int) -> bytes:
    """The datagram that asks for records of ``kind``. Raises ValueError: this cannot be a host name."""
    labels = name.rstrip(".").encode("idna" if not name.isascii() else "ascii").split(b".")
    if any(not 0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) > 254:
        raise ValueError(f"{name!r} is no host name")
    header = struct.pack("!HHHHHH", number, _RECURSION_DESIRED, 1, 0, 0, 0)
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return header + question + struct.pack("!HH", kind, _IN)


def decode_answer(data: bytes, number: int, kind: int) -> list[tuple[str, int]]:
    """Address and time to live (seconds) of each record of ``kind``. Raises ValueError: it is no answer."""
    try:
        return [*_records(data, number, kind)]
    except (struct.error, IndexError) as error:
        raise ValueError("the name server's answer is cut off") from error


def _records(data: bytes, number: int, kind: int) -> Iterator[tuple[str, int]]:
    echoed, flags, questions, answers = struct.unpack_from("!HHHH", data)
    if echoed != number or not flags & _RESPONSE or flags & _TRUNCATED:
        raise ValueError("the name server answers something else")
    if flags & _CODE:
        return
    position = 12
    for _ in range(questions):
        position = _after_name(data, position) + 4
    for _ in range(answers):
        position = _after_name(data, position)
        found, _, ttl, size = struct.unpack_from("!HHIH", data, position)
        position += 10
        if found == kind:
            yield str(ipaddress.ip_address(data[position : position + size])), ttl & 0x7FFFFFFF
        position += size


def _after_name(data: bytes, position: int) -> int:
    """Where the name that begins here ends; what it says does not matter."""
    while length := data[position]:
        if length & _POINTER:
            return position + 2
        position += 1 + length
    return position + 1
