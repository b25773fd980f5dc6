"""Finding the proxies that the configuration asks for: those it lists, and those that ``auto`` stands for.

Owns: the places where ``auto`` looks, the environment and proxy configuration files (CernVM-FS format
reference, section 8.1), and the check that what it found are URLs. Must not know: names' addresses, which
proxy is in use.
"""

import logging
import os
from random import Random
from urllib.parse import urlsplit

from cvmfs_graphdriver.client.addresses import host_of, is_address, shown_url
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.counters import ClientCounters
from cvmfs_graphdriver.client.errors import ConfigurationError, TransferError
from cvmfs_graphdriver.client.network.failover import Failover, Policy
from cvmfs_graphdriver.client.network.proxies import DIRECT, ProxyGroups, proxy_groups
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["find_groups"]

_FILE_LIMIT = 256 * 1024
_WPAD = "http://wpad/wpad.dat"

_log = logging.getLogger(__name__)


def find_groups(
    regular: str, fallback: str, settings: NetworkSettings, counters: ClientCounters
) -> ProxyGroups:
    """The proxy lists as groups, with ``auto`` replaced by the proxies that it stands for.

    Raises ConfigurationError: ``auto`` finds no proxy, or a proxy is not a valid URL.
    """
    parts = [part.strip() for part in regular.split(";")]
    if "auto" in parts:
        found = os.environ.get("http_proxy", "").strip() or _from_files(settings, counters)
        regular = ";".join(filter(None, (found if part == "auto" else part for part in parts)))
        if not regular:
            urls = "; ".join(map(shown_url, settings.pac_urls)) or _WPAD
            raise ConfigurationError(
                f"no proxy was found automatically, neither in http_proxy nor at {urls}; set CVMFS_HTTP_PROXY"
            )
    groups = proxy_groups(regular, fallback)
    for proxy in (proxy for group in groups.groups for proxy in group):
        if proxy != DIRECT and not is_address(proxy.url):
            raise ConfigurationError(
                f"{proxy.name!r} is not a valid proxy URL, such as http://squid.example.org:3128"
            )
    return groups


def _from_files(settings: NetworkSettings, counters: ClientCounters) -> str:
    """The proxies that the first usable file names; empty if there is none."""
    for url in settings.pac_urls or ("auto",):
        address = _WPAD if url == "auto" else url
        try:
            return _from_file(address, settings, counters)
        except (TransferError, RepositoryError, ValueError) as error:
            _log.warning("no proxy from %s: %s", shown_url(address), error)
    return ""


def _from_file(address: str, settings: NetworkSettings, counters: ClientCounters) -> str:
    from cvmfs_graphdriver.client.network.pac import find_proxies  # few sites have such files

    if not is_address(address):
        raise ValueError("it is not a valid URL; correct CVMFS_PAC_URLS")
    parts = urlsplit(address)
    path = f"{parts.path.lstrip('/')}{'?' if parts.query else ''}{parts.query}"
    server = f"{parts.scheme}://{parts.netloc}"
    failover = Failover([server], proxy_groups(""), Policy(), Random())  # noqa: S311 - it spreads load
    transfer = Transfer(settings, failover, counters)
    try:
        source = transfer.get(path, _FILE_LIMIT).decode("utf-8", "replace")
    finally:
        transfer.close()
    return find_proxies(source, settings.servers[0], host_of(settings.servers[0]))
