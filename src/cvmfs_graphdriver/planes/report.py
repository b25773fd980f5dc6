"""What administrators are told about mounted repositories: one line each, the cache, what is degraded.

Owns: the wording. Everything is known on this machine, without asking the network. Must not know: who shows
it.
"""

import time
from collections.abc import Mapping, Sequence

from cvmfs_graphdriver.client.administration.status import Status
from cvmfs_graphdriver.client.counters import Count

__all__ = ["cache_row", "degraded_row", "repository_row"]

_RECENT = 600
"""Seconds for which a file that could not be read is reported."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def repository_row(status: Status) -> tuple[str, str]:
    """A mounted repository."""
    check = f"next check in {_time(status.next_refresh)}" if status.next_refresh >= 0 else "revision is fixed"
    age = f", {_time(time.time() - status.published)} old" if status.published else ""
    source = f"from {status.host} by {status.proxy}, {status.counters[Count.IO_ERRORS]} I/O errors"
    return f"Repository {status.fqrn}", f"revision {status.revision}{age}, {check}, {source}"


def cache_row(directory: str, quota: str, statuses: Sequence[Status]) -> tuple[str, str]:
    """The shared cache; ``quota`` is the plugin's setting in MiB, or empty."""
    if not statuses:
        return "Cache", f"{directory}, quota {f'{quota} MiB' if quota else 'as configured'}"
    cache = statuses[0]
    limit = f" of {cache.cache_limit >> 20} MiB" if cache.cache_limit >= 0 else " MiB, no quota"
    return "Cache", f"{directory}, {cache.cache_used >> 20}{limit}"


def degraded_row(
    statuses: Sequence[Status], broken: Mapping[str, str], problems: Sequence[str] = ()
) -> tuple[str, str]:
    """What does not work properly.

    ``broken`` are repositories whose server does not answer, and why; ``problems`` concern all repositories.
    """
    found = [*problems, *(f"{name}: {why}" for name, why in broken.items())]
    for status in statuses:
        if status.offline:
            found.append(f"{status.fqrn}: served from the cache alone: {status.offline}")
        if status.whitelist_problem:
            found.append(status.whitelist_problem)
        if status.avoided:
            found.append(
                f"{status.fqrn}: shows revision {status.revision}, since servers died of the newer one with "
                f"root catalog {status.avoided}"
            )
        if status.cache_full:
            found.append(f"{status.fqrn}: the disk of the cache {status.cache_directory} is full")
        if status.last_io_error and (ago := time.time() - status.last_io_error) < _RECENT:
            found.append(f"{status.fqrn}: cannot be read ({_time(ago)} ago): {status.last_io_error_text}")
        if status.burned_proxies:
            found.append(f"{status.fqrn}: {status.burned_proxies} proxies do not answer")
    return "Degraded", "; ".join(found) or "no"


def _time(seconds: float) -> str:
    """A duration in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
