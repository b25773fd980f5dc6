"""``docker2cvmfs make-thin``: put images into a repository and push their thin images."""

import functools

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import tell_outcomes
from cvmfs_graphdriver.cli.docker2cvmfs.options import repository_option
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing, publishing_options
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.conversion.batch import Batch, ConversionRequest
from cvmfs_graphdriver.conversion.make_thin import ThinTarget
from cvmfs_graphdriver.oci.image.reference import ImageReference

__all__ = ["command"]


@click.command("make-thin", short_help="Put images into a repository and push their thin images.")
@click.option(
    "-i",
    "--image",
    "images",
    metavar="IMAGE",
    required=True,
    multiple=True,
    help="The image to convert; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="IMAGE",
    required=True,
    multiple=True,
    help="The thin image to push; one for each --image, in the same order.",
)
@repository_option
@publishing_options
@json_option
@click.pass_obj
def command(
    access: Access,
    images: tuple[str, ...],
    outputs: tuple[str, ...],
    fqrn: str,
    *,
    as_json: bool,
    publishing: Publishing,
) -> None:
    """Store the layers of images in a repository and push thin images of them.

    Layers that the repository already has are neither fetched nor stored again; the others appear in it all
    at once. A thin image keeps the configuration of its image. Prints the name and digest of each thin image.
    A failed image does not stop the others. The unmodified images can start lazily, too, as with publish.
    """
    if len(images) != len(outputs):
        raise click.UsageError("each --image needs an --output")
    references = [access.reference(output) for output in outputs]
    repository = publishing.open(fqrn)

    def target(reference: ImageReference) -> ThinTarget:
        return ThinTarget(access.registry(reference.host), reference, publishing.form)

    requests = [
        ConversionRequest(
            image, functools.partial(access.source, image), functools.partial(target, reference)
        )
        for image, reference in zip(images, references, strict=True)
    ]
    with watch() as progress:
        batch = Batch(repository, publishing.layout, progress, publishing.platform)
        outcomes = list(batch.run(requests))
    tell_outcomes(fqrn, outcomes, as_json=as_json)
