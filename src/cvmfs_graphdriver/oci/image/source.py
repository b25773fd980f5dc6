"""Where an image comes from: the interface of all sources, and how an image is loaded from one.

Owns: choosing the platform, and the chain from manifest to configuration to layers, in which each verifies
the next by its digest. Must not know: any particular kind of source.
"""

from types import TracebackType
from typing import Protocol, Self

from cvmfs_graphdriver.oci.document import LIMIT
from cvmfs_graphdriver.oci.errors import ImageFormatError, ImageNotFoundError
from cvmfs_graphdriver.oci.image.model import (
    ContentDescriptor,
    Image,
    ImageConfig,
    ImageManifest,
    Index,
    parse_manifest,
)
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.verify import ByteSource, Verifier, read_to_end

__all__ = ["BlobReader", "ImageSource", "load_image", "read_document"]

_MAX_INDEX_DEPTH = 3


class BlobReader(ByteSource, Protocol):
    """An open blob, whose end is reported only once size and digest are verified."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ImageSource(Protocol):
    """One image, or one index of images, in a registry, a directory or an archive."""

    @property
    def name(self) -> str:
        """What the user calls the image."""
        ...

    def root(self) -> ImageManifest | Index:
        """What the name stands for."""
        ...

    def manifest(self, descriptor: ContentDescriptor) -> bytes:
        """The bytes of a manifest that an index names: unverified, of bounded length."""
        ...

    def blob(self, descriptor: ContentDescriptor) -> BlobReader:
        """Open a configuration or a layer."""
        ...


def load_image(source: ImageSource, platform: Platform | None) -> Image:
    """The image for ``platform``; without one, the image for this machine of an index, else the only one.

    Raises ImageNotFoundError: there is none for this platform; and whatever the source and the parsers raise.
    """
    manifest = source.root()
    for _ in range(_MAX_INDEX_DEPTH):
        if isinstance(manifest, ImageManifest):
            return _complete(source, manifest, platform)
        chosen = _choose(source.name, manifest, platform or Platform.local())
        data = source.manifest(chosen)
        verifier = Verifier(f"manifest {chosen.digest} of {source.name}", chosen.digest, chosen.size)
        verifier.update(data)
        verifier.finish()
        manifest = parse_manifest(f"manifest {chosen.digest} of {source.name}", data, chosen.media_type)
    raise ImageFormatError(
        f"image {source.name} is an index of indexes more than {_MAX_INDEX_DEPTH} levels deep"
    )


def read_document(source: ImageSource, descriptor: ContentDescriptor, name: str) -> bytes:
    """All of a blob that is a document; raises ImageFormatError if it claims to be too long."""
    if descriptor.size > LIMIT:
        raise ImageFormatError(f"{name} claims {descriptor.size} bytes; the limit is {LIMIT}")
    with source.blob(descriptor) as blob:
        return read_to_end(blob)


def _choose(name: str, index: Index, platform: Platform) -> ContentDescriptor:
    position = platform.choose([child.platform for child in index.manifests])
    if position is None:
        offered = sorted({str(child.platform) for child in index.manifests if child.platform})
        raise ImageNotFoundError(
            f"image {name} is not available for {platform}; choose one with --platform: {', '.join(offered)}"
        )
    return index.manifests[position]


def _complete(source: ImageSource, manifest: ImageManifest, platform: Platform | None) -> Image:
    name = f"configuration {manifest.config.digest} of {source.name}"
    config = ImageConfig.parse(name, read_document(source, manifest.config, name))
    if platform is not None and platform.choose([config.platform]) is None:
        raise ImageNotFoundError(f"image {source.name} is only for {config.platform}, not for {platform}")
    return Image.of(source.name, manifest, config)
