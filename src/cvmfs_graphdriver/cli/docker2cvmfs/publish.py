"""``docker2cvmfs publish``: put images into a repository, for nodes that start them unmodified."""

import functools
from pathlib import Path

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import tell_outcomes
from cvmfs_graphdriver.cli.docker2cvmfs.options import (
    images_argument,
    keys_option,
    platform_option,
    repository_option,
)
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.options import json_option, settings_option, storage_option
from cvmfs_graphdriver.cli.repo.options import open_repository
from cvmfs_graphdriver.conversion.batch import Batch, ConversionRequest
from cvmfs_graphdriver.conversion.layout import UnpackedLayout
from cvmfs_graphdriver.oci.image.platform import Platform

__all__ = ["command"]


@click.command("publish", short_help="Put images into a repository, to be started unmodified.")
@images_argument
@repository_option
@storage_option
@keys_option
@settings_option
@platform_option
@json_option
@click.pass_obj
def command(
    access: Access,
    images: tuple[str, ...],
    fqrn: str,
    storage: Path | None,
    keys: Path,
    settings: Path | None,
    platform: Platform | None,
    *,
    as_json: bool,
) -> None:
    """Store the layers of each IMAGE in a repository, without thin images.

    Nodes with the snapshotter find them there and start the unmodified image lazily. Layers lie in /.layers,
    as on unpacked.cern.ch, and records of their chains in /.chains. Layers that the repository already has
    are neither fetched nor stored again; the others appear in it all at once. Prints the name and digest of
    each image. A failed image does not stop the others.
    """
    if not images:
        raise click.UsageError("name at least one image")
    repository = open_repository(fqrn, storage, keys, settings)
    requests = [ConversionRequest(image, functools.partial(access.source, image), None) for image in images]
    with watch() as progress:
        outcomes = list(Batch(repository, UnpackedLayout(), progress, platform).run(requests))
    tell_outcomes(fqrn, outcomes, as_json=as_json)
