"""``cvmfs-graphdriver repo tag``: name revisions."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option, settings_option
from cvmfs_graphdriver.cli.repo.options import (
    open_repository,
    repository_options,
    wait_option,
)
from cvmfs_graphdriver.errors import printable
from cvmfs_graphdriver.publisher.tags import delete_tag, list_tags, set_tag
from cvmfs_graphdriver.repository.history import Tag

__all__ = ["command"]


@click.command("tag")
@repository_options
@click.argument("name", required=False)
@click.option("-m", "--message", default="", metavar="TEXT", help="A description of the tag.")
@click.option(
    "--delete", is_flag=True, help="Delete the tag NAME; its revision stays until garbage collection."
)
@settings_option
@wait_option
@json_option
def command(
    fqrn: str,
    storage: Path | None,
    keys: Path,
    name: str | None,
    message: str,
    settings: Path | None,
    wait: float,
    *,
    delete: bool,
    as_json: bool,
) -> None:
    """Tag the newest revision of REPO with NAME or, without NAME, list all tags, newest revision first.

    An existing tag is moved to the newest revision.
    """
    if name is None and (delete or message):
        raise click.UsageError("--delete and --message need the NAME of a tag")
    repository = open_repository(fqrn, storage, keys, settings)
    if name is not None and delete:
        delete_tag(repository, name, wait=wait)
    elif name is not None:
        set_tag(repository, name, description=message, wait=wait)
    else:
        tags = list_tags(repository)
        click.echo(json.dumps([_document(tag) for tag in tags]) if as_json else "\n".join(map(_line, tags)))


def _document(tag: Tag) -> dict[str, str | int]:
    return {
        "name": tag.name,
        "revision": tag.revision,
        "root": tag.root.text,
        "timestamp": tag.timestamp,
        "description": tag.description,
    }


def _line(tag: Tag) -> str:
    time = datetime.fromtimestamp(tag.timestamp, UTC)
    name, description = printable(tag.name), printable(tag.description)
    return f"{name}\t{tag.revision}\t{time:%Y-%m-%dT%H:%M:%SZ}\t{tag.root}\t{description}".rstrip()
