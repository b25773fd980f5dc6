"""An image in a tar archive that ``docker save`` wrote.

Owns: finding the image and the positions of its blobs in the archive (Docker image specification v1.2,
"Combined Image JSON + Filesystem Changeset Format"). Must not know: what layers contain. Such an archive has
no manifest of the kind registries have; one is synthesised from what it does have, so that later steps need
not distinguish. Nothing is unpacked, and names in the archive can only refer to its own members.
"""

import json
import posixpath
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.document import LIMIT, Document
from cvmfs_graphdriver.oci.errors import (
    ImageFormatError,
    ImageNotFoundError,
    ReferenceFormatError,
    UnsupportedImageError,
)
from cvmfs_graphdriver.oci.image.file_blob import FileBlob, open_file
from cvmfs_graphdriver.oci.image.model import ContentDescriptor, ImageConfig, ImageManifest, MediaType
from cvmfs_graphdriver.oci.image.reference import ImageReference

__all__ = ["ArchiveImage"]

_LIST: Final = "manifest.json"
_MAX_LINKS: Final = 8
_BLOB: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a member's bytes are in the archive."""

    offset: int
    size: int


class ArchiveImage:
    """The image ``reference`` of an archive, as a source; without a reference, its only image."""

    def __init__(self, file: Path, reference: str = "") -> None:
        """Nothing is opened yet; ``reference`` is as in ``docker save``, e.g. ``debian:12``."""
        self._file = file
        self._reference = reference
        self._blobs: dict[ContentDigest, _Place] = {}

    @property
    def name(self) -> str:
        return f"docker-archive:{self._file}" + (f":{self._reference}" if self._reference else "")

    def root(self) -> ImageManifest:
        """A manifest for the image.

        Raises ImageNotFoundError: no archive, or no such image in it. ImageFormatError,
        UnsupportedImageError: not an archive of this kind.
        """
        places = self._scan()
        chosen = self._choose(self._document(places, _LIST))
        raw = self._read(places, chosen.text("Config"))
        config = ContentDescriptor.of(MediaType.DOCKER_CONFIG, raw)
        diff_ids = ImageConfig.parse(f"the configuration of {self.name}", raw).diff_ids
        paths = chosen.texts("Layers")
        if len(paths) != len(diff_ids):
            chosen.refuse(f"it lists {len(paths)} layers, but the configuration {len(diff_ids)}")
        self._blobs = {config.digest: self._place(places, chosen.text("Config"))}
        layers = []
        for path, diff_id in zip(paths, diff_ids, strict=True):
            place = self._place(places, path)
            digest = _digest_in(path) or diff_id
            self._blobs[digest] = place
            layers.append(ContentDescriptor(MediaType.DOCKER_LAYER, digest, place.size))
        return ImageManifest(MediaType.DOCKER_MANIFEST, config, tuple(layers), {}, _manifest(config, layers))

    def manifest(self, descriptor: ContentDescriptor) -> bytes:
        """Always raises: such an archive has no index, so nothing can name another manifest."""
        raise ImageNotFoundError(f"{self.name} has no manifest {descriptor.digest}")

    def blob(self, descriptor: ContentDescriptor) -> FileBlob:
        place = self._blobs.get(descriptor.digest)
        if place is None:
            raise ImageNotFoundError(f"{self.name} has no blob {descriptor.digest}")
        name = f"blob {descriptor.digest} of {self.name}"
        return FileBlob(name, self._file, descriptor, offset=place.offset)

    def _scan(self) -> Mapping[str, tarfile.TarInfo]:
        """The archive's members by name."""
        with open_file(self._file, f"image {self.name}") as file:
            try:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    return {posixpath.normpath(member.name): member for member in archive}
            except (tarfile.TarError, OverflowError, ValueError) as error:
                raise UnsupportedImageError(
                    f"{self._file} is not an archive made by docker save ({error}); "
                    "if it is compressed, decompress it"
                ) from error

    def _place(self, members: Mapping[str, tarfile.TarInfo], path: str) -> _Place:
        """Where a member is; follows links within the archive."""
        name = posixpath.normpath(path)
        for _ in range(_MAX_LINKS):
            member = members.get(name)
            if member is None:
                break
            if member.isreg() and not member.issparse():
                return _Place(member.offset_data, member.size)
            if member.issym():
                name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                name = posixpath.normpath(member.linkname)
            else:
                break
        raise ImageFormatError(
            f"{self._file} is not a complete archive made by docker save: it has no file {path[:200]!r}"
        )

    def _read(self, members: Mapping[str, tarfile.TarInfo], path: str) -> bytes:
        place = self._place(members, path)
        if place.size > LIMIT:
            raise ImageFormatError(f"{self._file}: {path[:200]!r} exceeds the limit of {LIMIT} bytes")
        with open_file(self._file, f"image {self.name}") as file:
            file.seek(place.offset)
            return file.read(place.size)

    def _document(self, members: Mapping[str, tarfile.TarInfo], path: str) -> Document:
        """``manifest.json`` is a list; wrapped in an object it can be read like other documents."""
        data = b'{"images": ' + self._read(members, path) + b"}"
        return Document.parse(f"{path} in {self._file}", data, ImageFormatError, limit=LIMIT + 20)

    def _choose(self, images: Document) -> Document:
        found = list(images.objects("images"))
        names = sorted({_full(tag) for image in found for tag in image.texts("RepoTags")})
        if self._reference:
            wanted = _full(self._reference)
            found = [image for image in found if wanted in map(_full, image.texts("RepoTags"))]
        if len(found) == 1:
            return found[0]
        raise ImageNotFoundError(
            f"{self.name} does not identify one image; choose one with docker-archive:FILE:NAME:TAG from "
            f"{', '.join(names) or 'none'}"
        )


def _full(text: str) -> str:
    """A name in its full form; an invalid one is returned unchanged and matches no other."""
    try:
        return str(ImageReference.parse(text))
    except ReferenceFormatError:
        return text


def _digest_in(path: str) -> ContentDigest | None:
    """The digest in a blob's name; older archives name layers differently."""
    match = _BLOB.fullmatch(posixpath.normpath(path))
    if match is None:
        return None
    try:
        return ContentDigest.parse(f"{match[1]}:{match[2]}")
    except ReferenceFormatError:
        return None


def _manifest(config: ContentDescriptor, layers: list[ContentDescriptor]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.DOCKER_MANIFEST,
            "config": config.dump(),
            "layers": [layer.dump() for layer in layers],
        }
    ).encode()
