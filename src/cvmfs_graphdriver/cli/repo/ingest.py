"""``cvmfs-graphdriver repo ingest``: publish a tar as a directory, in one revision."""

import json
import os
import sys
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option, settings_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options, wait_option
from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["command"]


@click.command("ingest")
@repository_options
@click.argument("tar", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.argument("path")
@click.option("--tag", default="", metavar="NAME", help="Name the new revision.")
@settings_option
@wait_option
@json_option
def command(
    fqrn: str,
    storage: Path | None,
    keys: Path,
    tar: Path,
    path: str,
    tag: str,
    settings: Path | None,
    wait: float,
    *,
    as_json: bool,
) -> None:
    """Publish the content of TAR as the directory PATH of REPO, replacing what is there.

    TAR may be compressed with gzip or zstd; - is standard input. Owners, times, extended attributes, hard
    links and devices are kept; whiteouts stay files. Nothing changes unless all of it can be stored. Prints
    the number of the new revision.

    Example: cvmfs-graphdriver repo ingest images.example.org layer.tar.gz /layers/one
    """
    repository = open_repository(fqrn, storage, keys, settings)
    notes: list[str] = []
    with click.open_file(os.fspath(tar), "rb") as source, Transaction(repository, wait=wait) as transaction:
        name = "standard input" if source is sys.stdin.buffer else os.fspath(tar)
        target = b"/" + os.fsencode(path).strip(b"/")
        transaction.ingest(target, tree_entries(LayerStream(name, source), notes))
        manifest = transaction.publish(tag=tag)
        objects = transaction.objects
    for note in (*notes, *transaction.notes):
        click.echo(f"cvmfs-graphdriver: note: {note}", err=True)
    click.echo(
        f"{fqrn}: {objects.objects_new} new objects ({objects.bytes_new / (1 << 20):.1f} MiB), "
        f"{objects.objects_known} known",
        err=True,
    )
    account = {
        "revision": manifest.revision,
        "root": manifest.root.text,
        "objects_new": objects.objects_new,
        "objects_known": objects.objects_known,
        "bytes_new": objects.bytes_new,
    }
    click.echo(json.dumps(account) if as_json else manifest.revision)
