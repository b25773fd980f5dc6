"""``docker2cvmfs thin``: print the thin.json of an image."""

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import image_argument, platform_option
from cvmfs_graphdriver.conversion.convert import describe
from cvmfs_graphdriver.conversion.layout import DirectoryLayout
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.source import load_image

__all__ = ["command"]


@click.command("thin", short_help="Print the thin.json of an image.")
@image_argument
@click.argument("place", metavar="REPOSITORY/PATH")
@platform_option
@click.pass_obj
def command(access: Access, image: str, place: str, platform: Platform | None) -> None:
    """Print the thin.json of IMAGE with its layers below REPOSITORY/PATH, e.g. images.example.org/layers."""
    repository, _, path = place.removeprefix("cvmfs://").partition("/")
    layout = DirectoryLayout.parse(path)
    click.echo(describe(load_image(access.source(image), platform), repository, layout).dump(), nl=False)
