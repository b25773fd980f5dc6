"""Proxy auto-configuration files: which proxies they name for a URL.

Owns: the functions that every such file may call, and the meaning of its result (CernVM-FS format reference,
section 8.1). Must not know: the language, where a file comes from, how names are resolved.
"""

import fnmatch
import ipaddress
from collections.abc import Callable, Mapping, Sequence

from cvmfs_graphdriver.client.addresses import is_address
from cvmfs_graphdriver.client.pac.reading import read_program
from cvmfs_graphdriver.client.pac.running import Run, ScriptError, Value

__all__ = ["find_proxies"]

_SEPARATORS = frozenset(";|")
Resolve = Callable[[str], str | None]


def find_proxies(source: str, url: str, host: str, resolve: Resolve) -> str:
    """What the file ``source`` says for ``url``, as a list of proxy groups (section 8.1).

    ``resolve`` gives an address of a host, None if it has none. Raises ScriptError.
    """
    try:
        answer = Run(read_program(source), _builtins(resolve)).call("FindProxyForURL", [url, host])
    except RecursionError as error:  # brackets in the functions that call each other add up
        raise ScriptError("its functions call each other too deeply") from error
    if not isinstance(answer, str):
        raise ScriptError("FindProxyForURL returns no string")
    groups = [_group(part.split()) for part in answer.split(";") if part.strip()]
    return ";".join(group for group in groups if group)


def _group(words: Sequence[str]) -> str:
    kind = words[0].upper()
    if kind == "DIRECT":
        return "DIRECT"
    if len(words) != 2 or kind not in {"PROXY", "HTTP", "HTTPS"}:
        return ""
    place = words[1]
    if "://" not in place:
        place = f"https://{place}" if kind == "HTTPS" else f"http://{place}"
    return place if is_address(place) and not set(place) & _SEPARATORS else ""


def _builtins(resolve: Resolve) -> Mapping[str, Callable[..., Value]]:
    """The functions that a file may call; their arguments are strings."""
    return {
        "isPlainHostName": lambda host: "." not in host,
        "dnsDomainIs": lambda host, domain: host.lower().endswith(domain.lower()),
        "localHostOrDomainIs": lambda host, name: host == name or name.startswith(host + "."),
        "isResolvable": lambda host: resolve(host) is not None,
        "isInNet": lambda host, network, mask: _in_net(resolve, host, network, mask),
        "dnsResolve": resolve,
        "dnsDomainLevels": lambda host: float(host.count(".")),
        "myIpAddress": lambda: "127.0.0.1",
        "shExpMatch": lambda text, pattern: fnmatch.fnmatchcase(text, pattern.replace("[", "[[]")),
        "alert": lambda *_: None,
    }


def _in_net(resolve: Resolve, host: str, network: str, mask: str) -> bool:
    address = _address(host)
    if address is None:
        address = _address(resolve(host) or "")
    base, bits = _address(network), _address(mask)
    if address is None or base is None or bits is None:
        return False
    return address & bits == base & bits


def _address(text: str) -> int | None:
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        return None
