"""The commands of the talk socket of a running client (CernVM-FS format reference, section 12).

Owns: the commands and the form of their answers, which administrators' scripts parse. Must not know: sockets.
Commands of the reference client that do not apply to this client are unknown.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.client.addresses import is_address, place_of_nameserver, shown_url
from cvmfs_graphdriver.client.cache.ledger import Kind, Record
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.network.network import Network
from cvmfs_graphdriver.client.tree.revision import Node, Revision
from cvmfs_graphdriver.errors import CvmfsGraphdriverError

if TYPE_CHECKING:
    from cvmfs_graphdriver.client.administration.status import Status

__all__ = ["Talk"]

_MEGABYTE = 1024 * 1024
_LEAST_LIMIT = 1000
_UNKNOWN = "unknown command\n"
_OK = "OK\n"
_NO_FILE = "No such regular file\n"

Handler = Callable[[str], str | None]
"""Takes the rest of the line; returns None for success without output."""


class Talk:
    """Answers commands to one client that is mounted at ``mountpoint``.

    ``refresh`` checks for a new revision, if its argument is true past HTTP caches, and makes it visible,
    which the client alone cannot do.
    """

    def __init__(
        self, client: Client, mountpoint: Path, refresh: Callable[[bool], Revision | None] | None = None
    ) -> None:
        self._client = client
        self._mountpoint = mountpoint
        self._refresh = refresh or (lambda past_caches: client.refresh(past_caches=past_caches))
        # The longest matching prefix decides; the rest of the line is the argument.
        self._commands: Mapping[str, Handler] = {
            "cache size": self._cache_size,
            "cache instance": lambda _: f"{client.cache.directory}\n",
            "cache list": lambda _: self._cache_list(lambda record: record.kind is Kind.REGULAR),
            "cache list pinned": lambda _: self._cache_list(lambda record: record.pinned),
            "cache list catalogs": lambda _: self._cache_list(lambda record: record.kind is Kind.CATALOG),
            "cache limit get": lambda _: f"{self._client.eviction.limit // _MEGABYTE}\n",
            "cache limit set": self._cache_limit_set,
            "cleanup": self._cleanup,
            "cleanup rate": lambda minutes: f"{client.cleanups(60 * _number(minutes))}\n",
            "evict": self._evict,
            "pin": self._pin,
            "mountpoint": lambda _: f"{self._mountpoint}\n",
            "device id": self._device,
            "remount": lambda _: self._remount(past_caches=False),
            "remount sync": lambda _: self._remount(past_caches=False),
            "remount past caches": lambda _: self._remount(past_caches=True),
            "detach nested catalogs": lambda _: client.catalogs.detach(),
            "revision": lambda _: f"{self._revision().number}\n",
            "max ttl info": self._max_ttl_info,
            "max ttl set": self._max_ttl_set,
            "nameserver get": lambda _: f"{client.network.nameserver or 'unset'}\n",
            "nameserver set": self._nameserver_set,
            "timeout info": self._timeout_info,
            "timeout set": self._timeout_set,
            "host probe geo": self._probe_geo,
            "open catalogs": self._open_catalogs,
            "internal affairs": self._internal_affairs,
            "reset error counters": lambda _: client.counters.reset_errors(),
            "pid": lambda _: f"{os.getpid()}\n",
            "pid cachemgr": lambda _: f"{os.getpid()}\n",
            "parameters": self._parameters,
            "version": lambda _: f"{__version__}\n",
            "version patchlevel": lambda _: "0\n",
            "latency": self._latency,
            "metrics prometheus": self._metrics,
            "status json": lambda _: json.dumps(self._status().as_json()) + "\n",
            **self._network_commands("", client.network),
            **(
                self._network_commands("external ", client.external_network)
                if client.external_network
                else {}
            ),
        }

    def answer(self, line: str) -> str:
        """The answer to one command; errors are answers, too."""
        words = line.strip("\0 \r\n\t").split(" ")
        for count in range(len(words), 0, -1):
            handler = self._commands.get(" ".join(words[:count]))
            if handler is not None:
                try:
                    answer = handler(" ".join(words[count:]))
                except (CvmfsGraphdriverError, _UsageError) as error:
                    return f"Failed: {error}\n"
                return _OK if answer is None else answer
        return _UNKNOWN

    # Cache

    def _cache_size(self, _: str) -> str:
        used, pinned = self._client.eviction.usage()
        return (
            f"Current cache size is {used // _MEGABYTE}MB ({used} Bytes), "
            f"pinned: {pinned // _MEGABYTE}MB ({pinned} Bytes)\n"
        )

    def _cache_list(self, wanted: Callable[[Record], bool]) -> str:
        return "".join(
            f"{record.path or record.digest}\n"
            for record in self._client.eviction.records()
            if wanted(record)
        )

    def _cache_limit_set(self, text: str) -> None:
        megabytes = _number(text)
        if megabytes < _LEAST_LIMIT:
            raise _UsageError(f"the limit must be at least {_LEAST_LIMIT} MB")
        self._client.eviction.limit = int(megabytes) * _MEGABYTE

    def _cleanup(self, text: str) -> str:
        target = int(_number(text) * _MEGABYTE)
        left = self._client.eviction.shrink(target)
        return _OK if left <= target else "Not fully cleaned (there might be pinned chunks)\n"

    def _evict(self, path: str) -> str:
        file = self._file(path)
        if file is None:
            return _NO_FILE
        return _OK if self._client.evict(file) else "Failed\n"

    def _pin(self, path: str) -> str:
        file = self._file(path)
        if file is None:
            return _NO_FILE
        return _OK if self._client.pin(file) else "Failed (no space)\n"

    def _file(self, path: str) -> Node | None:
        return self._client.regular_file(os.fsencode(path.rstrip("/")))

    # Revisions and catalogs

    def _revision(self) -> Revision:
        revision = self._client.current
        if revision is None:
            raise _UsageError("nothing is mounted")
        return revision

    def _remount(self, *, past_caches: bool) -> str:
        return "Catalog up to date\n" if self._refresh(past_caches) is None else "New revision applied\n"

    def _open_catalogs(self, _: str) -> str:
        mounts = sorted(self._client.catalogs.open_mounts(), key=lambda mount: mount.mountpoint)
        return "".join(f"{os.fsdecode(mount.mountpoint) or '/'} {mount.digest}\n" for mount in mounts)

    def _max_ttl_info(self, _: str) -> str:
        limit = self._client.max_ttl
        return "unset\n" if limit is None else f"{limit / 60:g} minutes\n"

    def _max_ttl_set(self, text: str) -> None:
        minutes = _number(text)
        self._client.max_ttl = 60 * minutes if minutes else None

    # Network

    def _network_commands(self, prefix: str, network: Network) -> Mapping[str, Handler]:
        failover = network.transfer.failover
        commands: dict[str, Handler] = {
            "host info": lambda _: _host_info(network),
            "host probe": lambda _: network.probe(),
            "host switch": lambda _: network.transfer.switch_host(),
            "host set": lambda text: failover.set_hosts(_urls(text)),
            "proxy info": lambda _: _proxy_info(network),
            "proxy set": lambda text: network.set_proxies(text, network.fallback_proxies),
            "proxy fallback": lambda text: network.set_proxies(network.proxies, text),
            "proxy rebalance": lambda _: failover.rebalance(),
            "proxy group switch": lambda _: network.transfer.switch_group(),
        }
        return {prefix + name: handler for name, handler in commands.items()}

    def _probe_geo(self, _: str) -> str:
        return _OK if self._client.network.sort_by_distance() else "Failed\n"

    def _nameserver_set(self, place: str) -> None:
        try:
            place_of_nameserver(place)
        except ValueError:
            raise _UsageError(f"{place!r} is not the address of a name server") from None
        for network in filter(None, (self._client.network, self._client.external_network)):
            network.nameserver = place

    def _timeout_info(self, _: str) -> str:
        proxy, direct = self._client.transfer.timeout, self._client.transfer.timeout_direct
        return f"Timeout with proxy: {proxy:g}s\nTimeout without proxy: {direct:g}s\n"

    def _timeout_set(self, text: str) -> None:
        words = text.split()
        if len(words) != 2:
            raise _UsageError("usage: timeout set <proxy> <direct>")
        proxy, direct = map(_number, words)
        if min(proxy, direct) <= 0:
            raise _UsageError("a timeout must be more than 0 seconds")
        self._client.transfer.timeout, self._client.transfer.timeout_direct = proxy, direct

    # The process

    def _status(self) -> "Status":
        from cvmfs_graphdriver.client.administration.status import status_of  # not needed to mount

        return status_of(self._client, str(self._mountpoint))

    def _metrics(self, _: str) -> str:
        from cvmfs_graphdriver.client.administration.metrics import metrics_text

        return metrics_text([self._status()]).decode()

    def _device(self, _: str) -> str:
        try:
            device = os.stat(self._mountpoint).st_dev
        except OSError as error:
            raise _UsageError(f"{self._mountpoint}: {error.strerror}") from error
        return f"{os.major(device)}:{os.minor(device)}\n"

    def _internal_affairs(self, _: str) -> str:
        status = self._status().as_json()
        lists = {name: status.pop(name) for name in ("counters", "failures", "sources")}
        values = status | lists["counters"]
        values |= {f"failure:{kind}": number for kind, number in lists["failures"].items()}
        for source in lists["sources"]:
            where = f"{source['kind']} {source['name']}".strip()
            values |= {f"objects:{where}": source["objects"], f"bytes:{where}": source["size"]}
        return "".join(f"{name}: {value}\n" for name, value in values.items())

    def _parameters(self, _: str) -> str:
        configuration = self._client.settings.configuration
        lines = []
        for name in sorted({*PARAMETERS, *configuration}):
            setting = configuration.get(name)
            value = setting.value if setting else PARAMETERS[name].default
            lines.append(f"{name}={value}    # from {setting.origin if setting else 'default'}\n")
        return "".join(lines)

    def _latency(self, _: str) -> str:
        """The latency histogram of transfers as comma-separated values."""
        status = self._status()
        bounds = [*map(str, status.latency_bounds), "inf"]
        rows = "".join(f"{bound},{count}\n" for bound, count in zip(bounds, status.latencies, strict=True))
        return f"seconds,downloads\n{rows}"


class _UsageError(Exception):
    """A command cannot be carried out. Does not leave this module."""


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**40:
        raise _UsageError(f"{text!r} is not a valid number")
    return value


def _urls(text: str) -> list[str]:
    urls = [url.strip().rstrip("/") for url in text.split(";") if url.strip()]
    if not urls or not all(map(is_address, urls)):
        raise _UsageError("usage: host set <URL>[;<URL>...]")
    return urls


def _host_info(network: Network) -> str:
    failover = network.transfer.failover
    lines = [
        f"  [{number}] {shown_url(host)} ({_probed(network, host)})\n"
        for number, host in enumerate(failover.hosts)
    ]
    current = failover.current_host
    return "".join(lines) + f"Active host {current}: {shown_url(failover.hosts[current])}\n"


def _probed(network: Network, host: str) -> str:
    seconds = network.round_trips.get(host)
    if seconds is None:
        return "unprobed"
    return "host down" if math.isinf(seconds) else f"{1000 * seconds:.0f} ms"


def _proxy_info(network: Network) -> str:
    failover = network.transfer.failover
    groups, current = failover.groups, failover.current_group
    lines = ["Load-balance groups:\n"]
    for number, group in enumerate(groups.groups):
        lines.append(f"[{number}] {', '.join(proxy.address for proxy in group)}\n")
    lines.append(f"Active proxy: [{current}] {failover.current_proxy.address}\n")
    if groups.fallback < len(groups.groups):
        lines.append(f"First fallback group: [{groups.fallback}]\n")
    return "".join(lines)
