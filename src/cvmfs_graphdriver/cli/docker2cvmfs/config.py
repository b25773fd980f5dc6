"""``docker2cvmfs config``: print the configuration of an image."""

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import image_argument, platform_option
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.source import load_image

__all__ = ["command"]


@click.command("config", short_help="Print the configuration of an image.")
@image_argument
@platform_option
@click.pass_obj
def command(access: Access, image: str, platform: Platform | None) -> None:
    """Print the configuration of IMAGE verbatim."""
    click.echo(load_image(access.source(image), platform).config.raw)
