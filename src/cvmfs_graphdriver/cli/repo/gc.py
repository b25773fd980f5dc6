"""``cvmfs-graphdriver repo gc``: delete what no retained revision needs."""

import dataclasses
import json
import os
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option, settings_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options, wait_option
from cvmfs_graphdriver.publisher.care.gc import collect_garbage

__all__ = ["command"]

_DAY = 86_400


@click.command("gc")
@repository_options
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    metavar="DAYS",
    help="Retain revisions that were the newest within this many days: clients may have them mounted.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only report what would be deleted.")
@click.option(
    "--index",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Index of catalogs, which speeds up the next run (default: in ~/.cache/cvmfs-graphdriver).",
)
@settings_option
@wait_option
@json_option
def command(
    fqrn: str,
    storage: Path | None,
    keys: Path,
    keep_days: float,
    index: Path | None,
    settings: Path | None,
    wait: float,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete from the storage of REPO what neither a retained revision nor a tag needs.

    Readers of retained revisions are not affected. Nothing is deleted unless everything retained can be read.
    An interrupted run is continued by the next one.
    """
    repository = open_repository(fqrn, storage, keys, settings)
    done = collect_garbage(
        repository,
        index or _usual_index(fqrn),
        since=repository.clock() - keep_days * _DAY,
        dry_run=dry_run,
        wait=wait,
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
        return
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(
        f"{done.objects} objects ({done.size / (1 << 20):.1f} MiB) {verb}, {done.retained_objects} retained; "
        f"{done.forgotten_revisions} revisions forgotten, {done.retained_revisions} retained"
    )


def _usual_index(fqrn: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cvmfs-graphdriver" / f"{fqrn}.gc"
