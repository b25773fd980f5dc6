"""The image around a ``thin.json``, which is pushed so that ``docker pull`` and ``docker run`` work as usual.

Owns: its configuration, layer and manifest. The configuration is that of the source image except for what
describes layers; the layer contains only ``thin.json``. The same input gives the same bytes everywhere: the
layer's gzip stream is stored rather than deflated, so no library's version matters. Must not know:
registries.
"""

import json
import tarfile
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.model import ContentDescriptor, Image, MediaType
from cvmfs_graphdriver.oci.image.thin import THIN_FILE, ThinImage

__all__ = ["ManifestFormat", "PackedImage", "pack_thin_image", "thin_layer"]

_ORIGIN: Final = "org.cernvm.thin-image.origin"
_VERSION: Final = "org.cernvm.thin-image.version"
_GZIP_FORMAT: Final = 31


class ManifestFormat(Enum):
    """Which specification the thin image's documents follow.

    Every tool reads Docker's; only the OCI's has annotations, which name the origin for other tools.
    """

    DOCKER = "docker"
    OCI = "oci"


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image ready to be pushed, blobs first and manifest last."""

    config: bytes
    layer: bytes
    manifest: bytes
    media_type: str

    @property
    def digest(self) -> ContentDigest:
        """The digest of the manifest, by which the image can be pulled."""
        return ContentDigest.of(self.manifest)


def pack_thin_image(source: Image, thin: ThinImage, form: ManifestFormat) -> PackedImage:
    """Wrap a descriptor in an image with the configuration of the image that it stands for."""
    tar = thin_layer(thin.dump())
    stored = zlib.compressobj(0, zlib.DEFLATED, _GZIP_FORMAT)
    layer = stored.compress(tar) + stored.flush()
    config = _config(source, ContentDigest.of(tar), thin)
    docker = form is ManifestFormat.DOCKER
    media_type = MediaType.DOCKER_MANIFEST if docker else MediaType.OCI_MANIFEST
    config_type = MediaType.DOCKER_CONFIG if docker else MediaType.OCI_CONFIG
    layer_type = MediaType.DOCKER_LAYER_GZIP if docker else MediaType.OCI_LAYER_GZIP
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": ContentDescriptor.of(config_type, config).dump(),
        "layers": [ContentDescriptor.of(layer_type, layer).dump()],
    }
    if not docker:
        manifest["annotations"] = {
            **source.manifest.annotations,
            _ORIGIN: thin.origin,
            _VERSION: thin.version,
        }
    return PackedImage(config, layer, _dump(manifest), media_type)


def _config(source: Image, diff_id: ContentDigest, thin: ThinImage) -> bytes:
    """The source's configuration with one layer; its history is kept as steps that add no layer."""
    config: dict[str, Any] = json.loads(source.config.raw)
    step: dict[str, Any] = {"created_by": "docker2cvmfs make-thin", "comment": thin.origin}
    if "created" in config:
        step["created"] = config["created"]
    history = config.get("history") or []
    config["history"] = [{**earlier, "empty_layer": True} for earlier in history] + [step]
    config["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id)]}
    return _dump(config)


def thin_layer(content: bytes) -> bytes:
    """A tar archive of ``thin.json`` alone, owned by root, with time 0."""
    member = tarfile.TarInfo(THIN_FILE.decode())
    member.size = len(content)
    member.mode = 0o644
    header = member.tobuf(tarfile.USTAR_FORMAT)
    return header + content + bytes(-len(content) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
