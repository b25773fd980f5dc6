"""``cvmfs-graphdriver cache list``: what is in a cache."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_eviction
from cvmfs_graphdriver.cli.options import etc_option, json_option
from cvmfs_graphdriver.client.cache.ledger import Kind, Record

__all__ = ["command"]


@click.command("list")
@click.argument("repository")
@click.option("--catalogs", is_flag=True, help="Only catalogs.")
@click.option("--pinned", is_flag=True, help="Only what is pinned.")
@etc_option
@json_option
def command(repository: str, etc: Path, *, catalogs: bool, pinned: bool, as_json: bool) -> None:
    """List what is in the cache of REPOSITORY, which other repositories may share.

    What was not used for the longest time, and goes first, comes first: when it was used, its size in bytes,
    its digest, and what it was fetched for.
    """
    with open_eviction(repository, etc) as eviction:
        records = [
            record
            for record in eviction.records()
            if (record.kind is Kind.CATALOG or not catalogs) and (record.pinned or not pinned)
        ]
        limit = eviction.limit
    if as_json:
        click.echo(json.dumps([_value(record) for record in records], indent=2))
        return
    for record in records:
        mark = "  pinned" if record.pinned else ""
        used = f"{_when(record):%Y-%m-%d %H:%M:%S}"
        click.echo(f"{used} {record.size:>12} {record.digest}  {record.path}{mark}")
    total = sum(record.size for record in records)
    click.echo(f"{len(records)} objects, {total} bytes of {limit}", err=True)


def _when(record: Record) -> datetime:
    """A sequence number is the time of the use in nanoseconds; that of volatile objects is less by 2**63."""
    return datetime.fromtimestamp((record.sequence + (2**63 if record.volatile else 0)) / 1e9, UTC)


def _value(record: Record) -> dict[str, object]:
    return {
        "digest": record.digest,
        "size": record.size,
        "used": _when(record).isoformat(),
        "kind": record.kind.name.lower(),
        "pinned": record.pinned,
        "volatile": record.volatile,
        "path": record.path,
    }
