"""``cvmfs-graphdriver repo info``: show a repository's state and size."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options
from cvmfs_graphdriver.publisher.care.summary import summarise

__all__ = ["command"]


@click.command("info")
@repository_options
@json_option
def command(fqrn: str, storage: Path | None, keys: Path, *, as_json: bool) -> None:
    """Show the newest revision of REPO, its content in numbers, and when its whitelist expires."""
    summary = summarise(open_repository(fqrn, storage, keys))
    document = {
        "name": fqrn,
        "storage": summary.location,
        "revision": summary.manifest.revision,
        "root": summary.manifest.root.text,
        "published": _time(datetime.fromtimestamp(summary.manifest.timestamp, UTC)),
        "whitelist_expires": _time(summary.whitelist.expires),
        "garbage_collectable": summary.manifest.garbage_collectable,
        "ttl": summary.manifest.ttl,
        "tags": summary.tags,
        "catalogs": summary.contents.nested + 1,
        "directories": summary.contents.dir,
        "files": summary.contents.regular,
        "symlinks": summary.contents.symlink,
        "bytes": summary.contents.file_size,
    }
    if as_json:
        click.echo(json.dumps(document))
        return
    width = max(map(len, document))
    for name, value in document.items():
        click.echo(f"{name.replace('_', ' '):{width}}  {value}")


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
