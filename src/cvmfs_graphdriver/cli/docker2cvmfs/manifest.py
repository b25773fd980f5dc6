"""``docker2cvmfs manifest``: print the manifest of an image."""

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import image_argument, platform_option
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.source import load_image

__all__ = ["command"]


@click.command("manifest", short_help="Print the manifest of an image.")
@image_argument
@platform_option
@click.pass_obj
def command(access: Access, image: str, platform: Platform | None) -> None:
    """Print the manifest of IMAGE verbatim; for an index, that of the platform's image."""
    click.echo(load_image(access.source(image), platform).manifest.raw)
