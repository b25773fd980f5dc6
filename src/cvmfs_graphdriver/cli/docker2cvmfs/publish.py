"""``docker2cvmfs publish``: put images into a repository, for nodes that start them unmodified."""

import functools

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import tell_outcomes
from cvmfs_graphdriver.cli.docker2cvmfs.options import Destination, destination_options, images_argument
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.conversion.batch import Batch, ConversionRequest
from cvmfs_graphdriver.conversion.layout import UnpackedLayout

__all__ = ["command"]


@click.command("publish", short_help="Put images into a repository, to be started unmodified.")
@images_argument
@destination_options
@json_option
@click.pass_obj
def command(access: Access, images: tuple[str, ...], *, as_json: bool, destination: Destination) -> None:
    """Store the layers of each IMAGE in a repository, without thin images.

    Nodes with the snapshotter find them there and start the unmodified image lazily. Layers lie in /.layers,
    as on unpacked.cern.ch, and records of their chains in /.chains. Layers that the repository already has
    are neither fetched nor stored again; the others appear in it all at once. Prints the name and digest of
    each image. A failed image does not stop the others.
    """
    if not images:
        raise click.UsageError("name at least one image")
    repository = destination.open()
    requests = [ConversionRequest(image, functools.partial(access.source, image), None) for image in images]
    with watch() as progress:
        outcomes = list(Batch(repository, UnpackedLayout(), progress, destination.platform).run(requests))
    tell_outcomes(destination.fqrn, outcomes, as_json=as_json)
