"""``docker2cvmfs make-thin``: put images into a repository and push their thin images."""

import functools
import json

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import account_of, tell, tell_outcome
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing, publishing_options
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.conversion.batch import Batch, ConversionRequest
from cvmfs_graphdriver.conversion.errors import RecipeIncompleteError
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
@click.option("-r", "--repository", "fqrn", metavar="REPO", required=True, help="The CernVM-FS repository.")
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
    A failed image does not stop the others.
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
    if len(outcomes) > 1:
        for outcome in outcomes:
            tell_outcome(fqrn, outcome, as_json=as_json)
        failed = sum(outcome.error is not None for outcome in outcomes)
        if failed:
            raise RecipeIncompleteError(
                f"{failed} of {len(outcomes)} images could not be converted, see above"
            )
        return
    made = outcomes[0].made
    if made is None:
        raise outcomes[0].error or AssertionError("an outcome has a thin image or an error")
    tell(fqrn, made)
    click.echo(json.dumps(account_of(fqrn, made)) if as_json else str(made.reference))
