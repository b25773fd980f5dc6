"""``docker2cvmfs make-thin``: an image into a repository, its thin image into a registry."""

import json

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import as_json as account_of
from cvmfs_graphdriver.cli.docker2cvmfs.account import tell
from cvmfs_graphdriver.cli.docker2cvmfs.options import json_option
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing, publishing_options
from cvmfs_graphdriver.conversion.make_thin import ThinTarget, make_thin
from cvmfs_graphdriver.oci.source import load_image

__all__ = ["command"]


@click.command("make-thin", short_help="Put an image into a repository and push its thin image.")
@click.option("-i", "--image", "image_name", metavar="IMAGE", required=True, help="The image to convert.")
@click.option("-o", "--output", metavar="IMAGE", required=True, help="The thin image to push.")
@click.option("-r", "--repository", "fqrn", metavar="REPO", required=True, help="The CernVM-FS repository.")
@publishing_options
@json_option
@click.pass_obj
def command(
    access: Access, image_name: str, output: str, fqrn: str, *, as_json: bool, publishing: Publishing
) -> None:
    """Store the layers of an image in a repository and push a thin image of it.

    Layers that the repository has are neither fetched nor stored again; the others appear in it all at once.
    The thin image has the whole configuration of the image. Prints its name and digest.
    """
    reference = access.reference(output)
    repository = publishing.open(fqrn)
    source = access.source(image_name)
    image = load_image(source, publishing.platform)
    target = ThinTarget(access.registry(reference.host), reference, publishing.form)
    with watch() as progress:
        made = make_thin(source, image, repository, publishing.layout, target, progress)
    tell(fqrn, made)
    click.echo(json.dumps(account_of(fqrn, made)) if as_json else str(made.reference))
