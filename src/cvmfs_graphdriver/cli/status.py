"""``cvmfs-graphdriver status``: the state of the repositories mounted on this machine."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option, json_option
from cvmfs_graphdriver.client.administration.running import ask_status, find_sockets, running_clients
from cvmfs_graphdriver.client.administration.status import Status
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.counters import Count
from cvmfs_graphdriver.errors import printable

__all__ = ["command"]

_TITLES = (
    *("REPOSITORY", "REVISION", "STATE", "UP", "SERVER", "PROXY", "CACHE", "HITS", "RECEIVED", "ERRORS"),
    "MOUNTED AT",
)
_UNITS = ("B", "kB", "MB", "GB", "TB")


@click.command("status")
@click.argument("repositories", nargs=-1)
@click.option("--prometheus", is_flag=True, help="Print metrics in Prometheus' text format.")
@etc_option
@json_option
def command(repositories: tuple[str, ...], etc: Path, *, prometheus: bool, as_json: bool) -> None:
    """Print the state of REPOSITORIES, or of all mounted repositories."""
    if repositories:
        statuses = [ask_status(load_settings(name, etc).talk_socket) for name in repositories]
    else:
        statuses = running_clients(find_sockets(etc))
    if prometheus:
        from cvmfs_graphdriver.client.administration.metrics import metrics_text

        click.echo(metrics_text(statuses).decode(), nl=False)
    elif as_json:
        click.echo(json.dumps([status.as_json() for status in statuses], indent=2))
    elif statuses:
        _print(statuses)
    else:
        click.echo("no repository is mounted", err=True)


def _print(statuses: Sequence[Status]) -> None:
    rows = [_TITLES, *(_row(status) for status in statuses)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for status in statuses:
        if status.offline:
            click.echo(f"{status.fqrn} is offline: {status.offline}", err=True)
        if status.last_io_error_text:
            when = f"{datetime.fromtimestamp(status.last_io_error, UTC):%Y-%m-%d %H:%M:%S} UTC"
            click.echo(
                f"{status.fqrn}: last error ({when}): {printable(status.last_io_error_text)}", err=True
            )
        if status.whitelist_problem:
            click.echo(f"warning: {status.whitelist_problem}", err=True)
        if status.avoided:
            click.echo(
                f"{status.fqrn} shows revision {status.revision}, since servers died of the newer one with "
                f"root catalog {status.avoided}",
                err=True,
            )


def _row(status: Status) -> Sequence[str]:
    hits, misses = status.counters[Count.HITS], status.counters[Count.MISSES]
    limit = f" of {_size(status.cache_limit)}" if status.cache_limit >= 0 else ""
    return (
        status.fqrn,
        str(status.revision),
        "offline" if status.offline else "online",
        _time(status.uptime),
        status.host.partition("://")[2].partition("/")[0],
        status.proxy.partition("://")[2] or status.proxy,
        _size(status.cache_used) + limit,
        f"{100 * hits / (hits + misses):.1f} %" if hits + misses else "-",
        _size(status.counters[Count.BYTES_RECEIVED]),
        str(status.counters[Count.IO_ERRORS]),
        status.mountpoint,
    )


def _size(number: float) -> str:
    """A size for people."""
    for unit in _UNITS:
        if number < 1000 or unit == _UNITS[-1]:
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def _time(seconds: float) -> str:
    """A duration for people."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s"
