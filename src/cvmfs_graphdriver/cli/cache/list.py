"""``cvmfs-graphdriver cache list``: list the objects in a cache."""

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
@click.option("--catalogs", is_flag=True, help="List only catalogs.")
@click.option("--pinned", is_flag=True, help="List only pinned objects.")
@etc_option
@json_option
def command(repository: str, etc: Path, *, catalogs: bool, pinned: bool, as_json: bool) -> None:
    """List the objects in the cache of REPOSITORY, which other repositories may share.

    The least recently used objects, which are evicted first, come first. Columns: last use, size in bytes,
    digest, and what the object was fetched for.
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
    """The last use: the sequence number in nanoseconds, which is less by 2**63 for volatile objects."""
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
