"""From an image to a thin image in a registry.

Owns: the order. The blobs of the thin image, which follow from the source's documents alone, are uploaded
first: a registry that does not take them is known before hours are spent, and nobody sees them. Its manifest
is put last, when the repository has what it points to; one that is there already is not put again, for a push
is an event that others listen for. Must not know: how either is done.
"""

from dataclasses import dataclass

from cvmfs_graphdriver.conversion.convert import Conversion, convert, describe
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.conversion.progress import Progress
from cvmfs_graphdriver.oci.model import Image
from cvmfs_graphdriver.oci.reference import Reference
from cvmfs_graphdriver.oci.registry import Registry
from cvmfs_graphdriver.oci.source import ImageSource
from cvmfs_graphdriver.oci.thin_image import ManifestFormat, pack_thin_image
from cvmfs_graphdriver.publisher.repository import Repository

__all__ = ["MadeThin", "ThinTarget", "make_thin"]


@dataclass(frozen=True, slots=True)
class ThinTarget:
    """Where a thin image goes, and in which form."""

    registry: Registry
    reference: Reference
    form: ManifestFormat = ManifestFormat.DOCKER


@dataclass(frozen=True, slots=True)
class MadeThin:
    """A thin image that the registry has: by its name and digest, and how it came about."""

    reference: Reference
    conversion: Conversion
    pushed: bool
    """False where the registry had it already."""


def make_thin(
    source: ImageSource,
    image: Image,
    repository: Repository,
    layout: LayerLayout,
    target: ThinTarget,
    progress: Progress,
) -> MadeThin:
    """Convert an image and push its thin image.

    Raises what ``convert`` raises, and what the target's registry answers. A push that fails leaves the
    layers in the repository, where the next attempt finds them.
    """
    packed = pack_thin_image(image, describe(image, repository.fqrn, layout), target.form)
    known = target.registry.has_manifest(target.reference, packed.digest)
    if not known:
        for blob in (packed.layer, packed.config):
            target.registry.upload_blob(target.reference.repository, blob)
    conversion = convert(source, image, repository, layout, progress)
    if not known:
        target.registry.upload_manifest(target.reference, packed.manifest, packed.media_type)
    return MadeThin(target.reference.with_digest(packed.digest), conversion, pushed=not known)
