"""``docker2cvmfs index``: index images whose layers are in a repository already."""

import json

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import Destination, destination_options, images_argument
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import sub_option
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.conversion.chains import prune_records
from cvmfs_graphdriver.conversion.errors import IncompleteIndexError
from cvmfs_graphdriver.conversion.indexing import Indexed, index_layers, layers_of, recorded_images
from cvmfs_graphdriver.conversion.layout import DirectoryLayout, UnpackedLayout
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.image.model import ImageLayer
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["command"]


@click.command("index", short_help="Index images whose layers are in a repository already.")
@images_argument
@click.option("--all", "all_images", is_flag=True, help="Index all images that the repository records.")
@destination_options
@sub_option
@json_option
@click.pass_obj
def command(
    access: Access,
    images: tuple[str, ...],
    sub: str,
    *,
    all_images: bool,
    as_json: bool,
    destination: Destination,
) -> None:
    """Record the chains of images, so that nodes find the layers of the unmodified images.

    Layers are looked for in /.layers and in the directory of --sub; none is fetched. Of each IMAGE, manifest
    and configuration are read; with --all, the repository itself has to say which images it has, as in the
    layout of unpacked.cern.ch, and no registry is asked. Records whose layers are gone are removed. Prints a
    line for each image. A failed image does not stop the others.
    """
    if all_images == bool(images):
        raise click.UsageError("name images, or use --all")
    layouts = (UnpackedLayout(), DirectoryLayout.parse(sub))
    fqrn = destination.fqrn
    with Transaction(destination.open()) as transaction:

        def described(name: str) -> tuple[ImageLayer, ...]:
            if all_images:
                return layers_of(transaction, name)
            return load_image(access.source(name), destination.platform).layers

        records = failed = 0
        names = sorted(recorded_images(transaction)) if all_images else images
        if not names:
            raise IncompleteIndexError(f"{fqrn} records no images in /.metadata; index each by its name")
        for name in names:
            try:
                indexed = index_layers(transaction, described(name), layouts)
            except CvmfsGraphdriverError as error:
                failed += 1
                _tell_failure(name, error, as_json=as_json)
                continue
            records += indexed.records
            failed += bool(indexed.missing)
            _tell(fqrn, name, indexed, as_json=as_json)
        removed = prune_records(transaction)
        if records or removed:
            transaction.publish()
    click.echo(f"{fqrn}: {records} new chain records, {removed} removed", err=True)
    if failed:
        raise IncompleteIndexError(f"{failed} of {len(names)} images could not be indexed wholly, see above")


def _tell(fqrn: str, name: str, indexed: Indexed, *, as_json: bool) -> None:
    """Report an image on standard output, and on standard error what it lacks."""
    if indexed.missing:
        click.echo(
            f"docker2cvmfs: {name}: {indexed.missing} of {indexed.layers} layers are not in {fqrn}; "
            f"publish the image: docker2cvmfs publish -r {fqrn} {name}",
            err=True,
        )
    account = {
        "image": name,
        "repository": fqrn,
        "chain_records": indexed.records,
        "layers": indexed.layers,
        "missing_layers": indexed.missing,
    }
    click.echo(json.dumps(account) if as_json else name)


def _tell_failure(name: str, error: CvmfsGraphdriverError, *, as_json: bool) -> None:
    click.echo(f"docker2cvmfs: {name}: {error}", err=True)
    if as_json:
        click.echo(json.dumps({"image": name, "error": str(error), "exit_code": error.exit_code}))
