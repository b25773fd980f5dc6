"""Where an image comes from, whatever that is: the interface, and the way from a name to an image.

Owns: the choice of a platform and the order manifest, configuration, layers, each checked by the digest that
the one before it names. Must not know: any particular kind of source.
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
    """An open blob, whose end is seen only once its size and digest are right."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ImageSource(Protocol):
    """One image, or one index of images, in a registry, a directory or an archive."""

    @property
    def name(self) -> str:
        """How the user knows the image."""
        ...

    def root(self) -> ImageManifest | Index:
        """What the name stands for."""
        ...

    def manifest(self, descriptor: ContentDescriptor) -> bytes:
        """The bytes of a manifest that an index names, not yet checked, of bounded length."""
        ...

    def blob(self, descriptor: ContentDescriptor) -> BlobReader:
        """Open a configuration or a layer."""
        ...


def load_image(source: ImageSource, platform: Platform | None) -> Image:
    """The image for ``platform``; without one, of an index the image for this machine, else what there is.

    Raises ImageNotFoundError: not for this platform. Whatever the source and the documents' parsers raise.
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
    """A blob that is a document, whole; raises ImageFormatError where it claims to be too long for one."""
    if descriptor.size > LIMIT:
        raise ImageFormatError(f"{name} claims {descriptor.size} bytes, more than the {LIMIT} that are read")
    with source.blob(descriptor) as blob:
        return read_to_end(blob)


def _choose(name: str, index: Index, platform: Platform) -> ContentDescriptor:
    position = platform.choose([child.platform for child in index.manifests])
    if position is None:
        offered = sorted({str(child.platform) for child in index.manifests if child.platform})
        raise ImageNotFoundError(
            f"image {name} is not there for {platform}; choose one by --platform: {', '.join(offered)}"
        )
    return index.manifests[position]


def _complete(source: ImageSource, manifest: ImageManifest, platform: Platform | None) -> Image:
    name = f"configuration {manifest.config.digest} of {source.name}"
    config = ImageConfig.parse(name, read_document(source, manifest.config, name))
    if platform is not None and platform.choose([config.platform]) is None:
        raise ImageNotFoundError(f"image {source.name} is for {config.platform} only, not for {platform}")
    return Image.of(source.name, manifest, config)
