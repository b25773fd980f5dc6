"""``cvmfs-graphdriver cache fsck``: check the objects in a cache."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from cvmfs_graphdriver.cli.cache.opened import open_cache
from cvmfs_graphdriver.cli.options import etc_option, json_option
from cvmfs_graphdriver.client.cache.fsck import Verdict, check_cache
from cvmfs_graphdriver.client.errors import CacheError

__all__ = ["command"]


@click.command("fsck")
@click.argument("repository")
@etc_option
@json_option
def command(repository: str, etc: Path, *, as_json: bool) -> None:
    """Verify every object in the cache of REPOSITORY.

    Corrupt objects are moved to its directory "quarantaine", unverifiable ones are removed; both are fetched
    again when needed. The exit status is 25 if an object was corrupt.
    """
    found: Counter[Verdict] = Counter()
    bad = []
    with open_cache(repository, etc) as cache:
        for checked in check_cache(cache):
            found[checked.verdict] += 1
            if checked.verdict is not Verdict.RIGHT:
                bad.append(checked)
                if not as_json:
                    click.echo(f"{checked.verdict:<9} {checked.digest}  {checked.path}")
    if as_json:
        click.echo(json.dumps({"checked": found.total(), "bad": [asdict(one) for one in bad]}, indent=2))
    click.echo(f"{found.total()} objects checked, {len(bad)} of them bad", err=True)
    if found[Verdict.WRONG]:
        raise CacheError(f"corrupt objects: {found[Verdict.WRONG]}; check the disk")
