"""``docker2cvmfs make-thin``: an image into a repository, its thin image into a registry."""

import json
from pathlib import Path
from typing import Any

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import json_option, platform_option
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.conversion.convert import Conversion
from cvmfs_graphdriver.conversion.layout import DirectoryLayout
from cvmfs_graphdriver.conversion.make_thin import ThinTarget, make_thin
from cvmfs_graphdriver.oci.model import Layer
from cvmfs_graphdriver.oci.platform import Platform
from cvmfs_graphdriver.oci.source import load_image
from cvmfs_graphdriver.oci.thin_image import ManifestFormat
from cvmfs_graphdriver.publisher.local import LocalStorage
from cvmfs_graphdriver.publisher.repository import Repository

__all__ = ["command"]


@click.command("make-thin")
@click.option("-i", "--image", "image_name", metavar="IMAGE", required=True, help="The image to convert.")
@click.option("-o", "--output", metavar="IMAGE", required=True, help="The thin image to push.")
@click.option("-r", "--repository", "fqrn", metavar="REPO", required=True, help="The CernVM-FS repository.")
@click.option(
    "-s", "--sub", default="layers/", show_default=True, metavar="PATH", help="Where in it the layers go."
)
@click.option(
    "--storage",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The repository's storage (default: /srv/cvmfs/REPO).",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=Path("/etc/cvmfs/keys"),
    show_default=True,
    help="The directory of its keys.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in ManifestFormat]),
    default=ManifestFormat.DOCKER.value,
    show_default=True,
    help="The documents of the thin image; only those of oci carry annotations.",
)
@platform_option
@json_option
@click.pass_obj
def command(
    access: Access,
    image_name: str,
    output: str,
    fqrn: str,
    sub: str,
    storage: Path | None,
    keys: Path,
    form: str,
    platform: Platform | None,
    *,
    as_json: bool,
) -> None:
    """Store the layers of an image in a repository and push a thin image of it.

    Layers that the repository has are neither fetched nor stored again; the others appear in it all at once.
    The thin image has the whole configuration of the image. Prints its name and digest.
    """
    layout = DirectoryLayout.parse(sub)
    reference = access.reference(output)
    repository = Repository.open(fqrn, LocalStorage(storage or Path("/srv/cvmfs", fqrn)), keys)
    source = access.source(image_name)
    image = load_image(source, platform)
    target = ThinTarget(access.registry(reference.host), reference, ManifestFormat(form))
    with watch() as progress:
        conversion, digest = make_thin(source, image, repository, layout, target, progress)
    for note in conversion.notes:
        click.echo(f"docker2cvmfs: note: {note}", err=True)
    click.echo(_summary(fqrn, conversion), err=True)
    pushed = str(reference.with_digest(digest))
    click.echo(json.dumps(_account(pushed, fqrn, conversion)) if as_json else pushed)


def _bytes(layers: tuple[Layer, ...]) -> int:
    return sum(layer.descriptor.size for layer in layers)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _summary(fqrn: str, conversion: Conversion) -> str:
    new, shared = conversion.new, conversion.shared
    return (
        f"{fqrn} revision {conversion.revision}: {len(new)} new layers ({_mib(_bytes(new))} fetched, "
        f"{_mib(conversion.stored_bytes)} stored), {len(shared)} shared ({_mib(_bytes(shared))} saved), "
        f"{conversion.known_objects} files were known"
    )


def _account(pushed: str, fqrn: str, conversion: Conversion) -> dict[str, Any]:
    """The summary for programs; sizes in bytes."""
    return {
        "image": conversion.thin.origin,
        "thin_image": pushed,
        "repository": fqrn,
        "revision": conversion.revision,
        "layers": [
            {"digest": str(layer.digest), "url": layer.location.url} for layer in conversion.thin.layers
        ],
        "new_layers": len(conversion.new),
        "shared_layers": len(conversion.shared),
        "fetched_bytes": _bytes(conversion.new),
        "saved_bytes": _bytes(conversion.shared),
        "stored_bytes": conversion.stored_bytes,
        "known_objects": conversion.known_objects,
        "notes": list(conversion.notes),
    }
