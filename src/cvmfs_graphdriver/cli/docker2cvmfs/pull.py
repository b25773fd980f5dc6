"""``docker2cvmfs pull``: write the layers of an image to files."""

import json
from pathlib import Path

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import image_argument, platform_option
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.conversion.pull import pull_layers
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.source import load_image

__all__ = ["command"]


@click.command("pull", short_help="Write the layers of an image to files.")
@image_argument
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@platform_option
@json_option
@click.pass_obj
def command(access: Access, image: str, directory: Path, platform: Platform | None, *, as_json: bool) -> None:
    """Write the layers of IMAGE to DIR as <digest>.tar.gz, and print their names, base first.

    Each is ready for `gunzip -c FILE | cvmfs_server ingest -t - -b layers/<digest> -c REPOSITORY`. Existing
    files are not fetched again.
    """
    source = access.source(image)
    with watch() as progress:
        files = pull_layers(source, load_image(source, platform), directory, progress)
    names = [str(file) for file in files]
    click.echo(json.dumps({"image": source.name, "files": names}) if as_json else "\n".join(names))
