"""An image in a directory: the OCI image layout (OCI image specification, image-layout.md).

Owns: finding the image in ``index.json``, and blobs as files. Must not know: who wrote the directory: as with
a registry, every byte is verified, and of the names in documents only digests become paths.
"""

from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.oci.errors import ImageFormatError, ImageNotFoundError
from cvmfs_graphdriver.oci.image.file_blob import FileBlob, read_small
from cvmfs_graphdriver.oci.image.model import (
    ContentDescriptor,
    ImageManifest,
    Index,
    MediaType,
    parse_manifest,
)
from cvmfs_graphdriver.oci.verify import Verifier

__all__ = ["LayoutImage"]

_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class LayoutImage:
    """The image ``tag`` of a layout, as a source; without a tag, its only image."""

    directory: Path
    tag: str = ""

    @property
    def name(self) -> str:
        return f"oci:{self.directory}" + (f":{self.tag}" if self.tag else "")

    def root(self) -> ImageManifest | Index:
        """The manifest or index that the layout's index names.

        Raises ImageNotFoundError: no layout, no such tag, or no tag given where there are several images.
        """
        index = parse_manifest(
            f"the index of {self.name}",
            read_small(self.directory / "index.json", f"image {self.name}"),
            MediaType.OCI_INDEX,
        )
        if not isinstance(index, Index):
            raise ImageFormatError(f"the index of {self.name} is not an index")
        chosen = [m for m in index.manifests if not self.tag or m.annotations.get(_REF_NAME) == self.tag]
        if not self.tag and len(chosen) > 1:
            if len({str(m.platform) for m in chosen if m.platform}) == len(chosen):
                return index
            raise ImageNotFoundError(f"{self.name} holds {len(chosen)} images; choose one with oci:DIR:TAG")
        if not chosen:
            tags = ", ".join(sorted(m.annotations.get(_REF_NAME, "") for m in index.manifests)) or "nothing"
            raise ImageNotFoundError(f"there is no image {self.name}; the layout holds {tags}")
        data = self.manifest(chosen[0])
        verifier = Verifier(f"the manifest of {self.name}", chosen[0].digest, chosen[0].size)
        verifier.update(data)
        verifier.finish()
        return parse_manifest(f"the manifest of {self.name}", data, chosen[0].media_type)

    def manifest(self, descriptor: ContentDescriptor) -> bytes:
        return read_small(self._path(descriptor), f"manifest {descriptor.digest} of {self.name}")

    def blob(self, descriptor: ContentDescriptor) -> FileBlob:
        return FileBlob(f"blob {descriptor.digest} of {self.name}", self._path(descriptor), descriptor)

    def _path(self, descriptor: ContentDescriptor) -> Path:
        return self.directory / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
