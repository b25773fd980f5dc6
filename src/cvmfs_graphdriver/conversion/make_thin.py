"""Making a thin image of an image, in a registry.

Owns: the two steps, before and after the layers are published. The thin image's blobs, which depend only on
the source's documents, are uploaded first: nobody sees them, and a registry that rejects them is noticed
before hours are spent. Its manifest is uploaded last, when the repository has what it points to, and not
again if the registry already has it, since others may listen for push events. Must not know: how layers are
converted, how a registry works.
"""

from dataclasses import dataclass
from typing import Self

from cvmfs_graphdriver.conversion.convert import describe
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.oci.image.model import Image
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.image.thin_image import ManifestFormat, PackedImage, pack_thin_image
from cvmfs_graphdriver.oci.registry.registry import Registry

__all__ = ["MadeThin", "ThinDraft", "ThinTarget"]


@dataclass(frozen=True, slots=True)
class ThinTarget:
    """Where a thin image goes, and in which format."""

    registry: Registry
    reference: ImageReference
    form: ManifestFormat = ManifestFormat.DOCKER


@dataclass(frozen=True, slots=True)
class MadeThin:
    """A thin image in the registry: its name with digest."""

    reference: ImageReference
    pushed: bool
    """False if the registry already had it."""


@dataclass(frozen=True, slots=True)
class ThinDraft:
    """A thin image whose blobs are in the registry but which is not visible yet."""

    target: ThinTarget
    packed: PackedImage
    known: bool
    """Whether the registry already has the identical image."""

    @classmethod
    def prepare(cls, image: Image, fqrn: str, layout: LayerLayout, target: ThinTarget) -> Self:
        """Upload the blobs of the thin image of ``image``. Raises whatever the target's registry raises."""
        packed = pack_thin_image(image, describe(image, fqrn, layout), target.form)
        known = target.registry.has_manifest(target.reference, packed.digest)
        if not known:
            for blob in (packed.layer, packed.config):
                target.registry.upload_blob(target.reference.repository, blob)
        return cls(target, packed, known)

    def finish(self) -> MadeThin:
        """Make it visible, now that its layers are published. Raises whatever the registry raises."""
        target, packed = self.target, self.packed
        if not self.known:
            target.registry.upload_manifest(target.reference, packed.manifest, packed.media_type)
        return MadeThin(target.reference.with_digest(packed.digest), pushed=not self.known)
