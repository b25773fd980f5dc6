"""From an image to a thin image in a registry.

Owns: the two steps, before and after the layers are in the repository. The blobs of the thin image, which
follow from the source's documents alone, are uploaded first: a registry that does not take them is known
before hours are spent, and nobody sees them. Its manifest is put last, when the repository has what it points
to; one that is there already is not put again, for a push is an event that others listen for. Must not know:
how either is done.
"""

from dataclasses import dataclass
from typing import Self

from cvmfs_graphdriver.conversion.convert import Conversion, describe
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.oci.image.model import Image
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.image.thin_image import ManifestFormat, PackedImage, pack_thin_image
from cvmfs_graphdriver.oci.registry.registry import Registry

__all__ = ["MadeThin", "ThinDraft", "ThinTarget"]


@dataclass(frozen=True, slots=True)
class ThinTarget:
    """Where a thin image goes, and in which form."""

    registry: Registry
    reference: ImageReference
    form: ManifestFormat = ManifestFormat.DOCKER


@dataclass(frozen=True, slots=True)
class MadeThin:
    """A thin image that the registry has: by its name and digest, and how it came about."""

    reference: ImageReference
    conversion: Conversion
    pushed: bool
    """False where the registry had it already."""


@dataclass(frozen=True, slots=True)
class ThinDraft:
    """A thin image whose parts are in the registry, and which nobody can see yet."""

    target: ThinTarget
    packed: PackedImage
    known: bool
    """Whether the registry has the very same image already."""

    @classmethod
    def prepare(cls, image: Image, fqrn: str, layout: LayerLayout, target: ThinTarget) -> Self:
        """Upload the parts of the thin image of ``image``. Raises what the target's registry answers."""
        packed = pack_thin_image(image, describe(image, fqrn, layout), target.form)
        known = target.registry.has_manifest(target.reference, packed.digest)
        if not known:
            for blob in (packed.layer, packed.config):
                target.registry.upload_blob(target.reference.repository, blob)
        return cls(target, packed, known)

    def finish(self, conversion: Conversion) -> MadeThin:
        """Make it visible: its layers are in the repository. Raises what the target's registry answers."""
        target, packed = self.target, self.packed
        if not self.known:
            target.registry.upload_manifest(target.reference, packed.manifest, packed.media_type)
        return MadeThin(target.reference.with_digest(packed.digest), conversion, pushed=not self.known)
