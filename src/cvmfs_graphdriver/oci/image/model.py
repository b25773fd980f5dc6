"""Images as documents: descriptors, manifests, indexes and configurations.

Owns: the media types and the parsers of the documents (OCI image specification 1.1, manifest.md,
image-index.md, config.md; Docker's "Image Manifest Version 2, Schema 2" has the same members under other
media types). Must not know: where the documents come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.document import Document
from cvmfs_graphdriver.oci.errors import ImageFormatError, ReferenceFormatError, UnsupportedImageError
from cvmfs_graphdriver.oci.image.platform import Platform

__all__ = [
    "MANIFEST_TYPES",
    "ContentDescriptor",
    "Image",
    "ImageConfig",
    "ImageLayer",
    "ImageManifest",
    "Index",
    "MediaType",
    "parse_manifest",
]


class MediaType(StrEnum):
    """The media types of the documents and layers of container images."""

    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
    DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
    DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    OCI_FOREIGN_LAYER_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    OCI_FOREIGN_LAYER_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"


MANIFEST_TYPES = (
    MediaType.OCI_MANIFEST,
    MediaType.DOCKER_MANIFEST,
    MediaType.OCI_INDEX,
    MediaType.DOCKER_INDEX,
)
"""What we tell a registry that we accept."""

_FOREIGN = frozenset(kind for kind in MediaType if "foreign" in kind or "nondistributable" in kind)
_LAYERS = frozenset(kind for kind in MediaType if ".tar" in kind) - _FOREIGN
_CONFIGS = frozenset({MediaType.DOCKER_CONFIG, MediaType.OCI_CONFIG})


def _digest(document: Document, key: str) -> ContentDigest:
    try:
        return ContentDigest.parse(document.text(key))
    except ReferenceFormatError as error:
        document.refuse(f"{key!r}: {error}")


@dataclass(frozen=True, slots=True)
class ContentDescriptor:
    """What a document says about a blob: its media type, digest and size in bytes."""

    media_type: str
    digest: ContentDigest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def read(cls, document: Document) -> Self:
        """Read a descriptor from a document."""
        platform = None
        if document.members.get("platform") is not None:
            named = document.member("platform")
            platform = Platform.normal(
                named.text("os"), named.text("architecture"), named.optional_text("variant")
            )
        return cls(
            media_type=document.text("mediaType"),
            digest=_digest(document, "digest"),
            size=document.natural("size"),
            platform=platform,
            annotations=document.text_map("annotations"),
        )

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Self:
        """The descriptor of ``data``."""
        return cls(media_type, ContentDigest.of(data), len(data))

    def dump(self) -> dict[str, str | int]:
        """The members of a descriptor in a manifest."""
        return {"mediaType": str(self.media_type), "size": self.size, "digest": str(self.digest)}

    @property
    def is_foreign(self) -> bool:
        """Whether the blob is a layer whose licence forbids redistribution."""
        return self.media_type in _FOREIGN

    def require_layer(self) -> None:
        """Check that the blob is a layer that can be unpacked and redistributed.

        Raises UnsupportedImageError: it is foreign, encrypted, or not a layer of files at all.
        """
        if self.is_foreign:
            raise UnsupportedImageError(
                f"layer {self.digest} is foreign ({self.media_type}): its licence forbids redistribution, "
                "so it cannot be put into a repository; convert an image without such layers"
            )
        if self.media_type not in _LAYERS:
            raise UnsupportedImageError(
                f"layer {self.digest} has the unsupported media type {self.media_type!r}; "
                "only tar layers, plain or compressed with gzip or zstd, can be converted"
            )


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """The manifest of an image for one platform; its digest is that of ``raw``."""

    media_type: str
    config: ContentDescriptor
    layers: tuple[ContentDescriptor, ...]
    """The layers, base first."""
    annotations: Mapping[str, str]
    raw: bytes

    @property
    def digest(self) -> ContentDigest:
        """The SHA-256 digest of the manifest."""
        return ContentDigest.of(self.raw)


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests for several platforms; Docker calls it a manifest list."""

    media_type: str
    manifests: tuple[ContentDescriptor, ...]
    annotations: Mapping[str, str]
    raw: bytes


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration of an image; only what we need is parsed, ``raw`` is all of it."""

    platform: Platform
    diff_ids: tuple[ContentDigest, ...]
    """The digests of the layers' tar streams, uncompressed, base first."""
    raw: bytes

    @classmethod
    def parse(cls, name: str, data: bytes) -> Self:
        """Read a configuration.

        Raises ImageFormatError: it does not conform to the specification. UnsupportedImageError: its root
        file system is not made of layers.
        """
        document = Document.parse(name, data, ImageFormatError)
        rootfs = document.member("rootfs")
        if rootfs.text("type") != "layers":
            raise UnsupportedImageError(f"{name}: the root file system is not made of layers")
        try:
            diff_ids = tuple(ContentDigest.parse(text) for text in rootfs.texts("diff_ids"))
        except ReferenceFormatError as error:
            rootfs.refuse(f"diff_ids: {error}")
        for _ in document.objects("history"):
            pass  # whoever copies it into another image relies on its form
        platform = Platform.normal(
            document.text("os"), document.text("architecture"), document.optional_text("variant")
        )
        return cls(platform, diff_ids, data)


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer of an image: the blob, and the digest of the tar stream inside it."""

    descriptor: ContentDescriptor
    diff_id: ContentDigest


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform; ``name`` is what the user calls it."""

    name: str
    manifest: ImageManifest
    config: ImageConfig
    layers: tuple[ImageLayer, ...]
    """The layers, base first."""

    @classmethod
    def of(cls, name: str, manifest: ImageManifest, config: ImageConfig) -> Self:
        """Join a manifest and its configuration.

        Raises ImageFormatError: their numbers of layers differ.
        """
        if len(manifest.layers) != len(config.diff_ids):
            raise ImageFormatError(
                f"image {name} contradicts itself: its manifest has {len(manifest.layers)} layers, "
                f"but its configuration {len(config.diff_ids)}"
            )
        layers = zip(manifest.layers, config.diff_ids, strict=True)
        return cls(name, manifest, config, tuple(ImageLayer(*pair) for pair in layers))

    @property
    def origin(self) -> str:
        """The image's name with the digest of its manifest."""
        return f"{self.name.partition('@')[0]}@{self.manifest.digest}"


def parse_manifest(name: str, data: bytes, media_type: str) -> ImageManifest | Index:
    """Parse a manifest or an index; ``media_type`` is the one it was delivered with, or empty.

    The document must not be readable as both (the attack of CVE-2021-41190), and its own media type must
    agree with the one it was delivered with.

    Raises ImageFormatError: it is contradictory or does not conform to the specification.
    UnsupportedImageError: it is of another kind, for example of Docker's schema 1.
    """
    document = Document.parse(name, data, ImageFormatError)
    if document.members.get("schemaVersion") == 1 or "fsLayers" in document.members:
        raise UnsupportedImageError(
            f"{name} uses Docker's obsolete schema 1; push the image again with a newer Docker"
        )
    own_type = document.optional_text("mediaType")
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type not in MANIFEST_TYPES:
        # A static file server, or a layout, says nothing useful, so the document itself has to.
        media_type = own_type or (
            MediaType.OCI_INDEX if "manifests" in document.members else MediaType.OCI_MANIFEST
        )
    if own_type and own_type != media_type:
        document.refuse(f"it was delivered as {media_type!r} but calls itself {own_type[:200]!r}")
    if document.members.get("schemaVersion") != 2:
        document.refuse("its schemaVersion is not 2")
    if "manifests" in document.members and ("layers" in document.members or "config" in document.members):
        document.refuse("it claims to be both an image and an index")
    annotations = document.text_map("annotations")
    if media_type in {MediaType.OCI_INDEX, MediaType.DOCKER_INDEX}:
        children = tuple(ContentDescriptor.read(child) for child in document.objects("manifests"))
        return Index(media_type, children, annotations, data)
    if media_type not in {MediaType.OCI_MANIFEST, MediaType.DOCKER_MANIFEST}:
        raise UnsupportedImageError(
            f"{name} has the unsupported media type {media_type[:200]!r}: it is not a container image"
        )
    config = ContentDescriptor.read(document.member("config"))
    if config.media_type not in _CONFIGS:
        raise UnsupportedImageError(
            f"{name} has a configuration of the unsupported media type {config.media_type[:200]!r}: "
            "it is an artifact of another kind, not a container image"
        )
    layers = tuple(ContentDescriptor.read(layer) for layer in document.objects("layers"))
    return ImageManifest(media_type, config, layers, annotations, data)
