"""The thin image descriptor ``thin.json``: an image's layers, and where they are in CernVM-FS.

Owns: the document's form (format reference, section 18.1) and strict validation, since it comes from a
registry and anybody may have written it. Must not know: the image around it, how repositories are mounted.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.document import Document
from cvmfs_graphdriver.oci.errors import ReferenceFormatError, ThinImageFormatError
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["REPOSITORY_NAME", "THIN_FILE", "THIN_LIMIT", "LayerLocation", "ThinImage", "ThinLayer"]

THIN_FILE = b"thin.json"
"""The only file in a thin image's layer."""
THIN_LIMIT = 1 << 20
"""Its maximum size in bytes."""

_SCHEME = "cvmfs://"
_VERSION = (1, 0)
_VERSION_FORM = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:\.[0-9]{1,4})*", re.ASCII)
REPOSITORY_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+", re.ASCII)
"""The form of a repository's fully qualified name."""
_MAX_REPOSITORY = 60
_MAX_PATH = 4095
_MAX_COMPONENT = 255


@dataclass(frozen=True, slots=True)
class LayerLocation:
    """A directory in a repository: ``path`` is absolute within it (``b"/a/b"``) and never the root.

    >>> LayerLocation.parse("cvmfs://images.example.org/layers/ab").path
    b'/layers/ab'
    """

    repository: str
    path: bytes

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse ``cvmfs://REPOSITORY/PATH``; doubled slashes, as older tools write them, count as one.

        Raises ThinImageFormatError: another scheme, an invalid repository name, or a path that leads upwards.
        """

        def refuse(problem: str) -> ThinImageFormatError:
            return ThinImageFormatError(f"layer location {url[:300]!r}: {problem}")

        if not url.startswith(_SCHEME):
            scheme = url.partition("://")[0] if "://" in url else ""
            raise refuse(f"the scheme {scheme[:40]!r} is unknown; layers must be at {_SCHEME}REPOSITORY/PATH")
        repository, _, rest = url.removeprefix(_SCHEME).partition("/")
        if not REPOSITORY_NAME.fullmatch(repository) or len(repository) > _MAX_REPOSITORY:
            raise refuse(f"{repository[:100]!r} is not a valid repository name")
        try:
            parts = [part for part in rest.encode().split(b"/") if part]
        except UnicodeEncodeError:
            raise refuse("it is not valid Unicode") from None
        if not parts:
            raise refuse("it names no directory in the repository")
        if any(part in {b".", b".."} for part in parts):
            raise refuse("it contains . or ..")
        path = b"/" + b"/".join(parts)
        if any(byte < 0x20 or byte == 0x7F for byte in path):
            raise refuse("it contains a control character")
        if len(path) > _MAX_PATH or max(map(len, parts)) > _MAX_COMPONENT:
            raise refuse("it is longer than Linux allows")
        return cls(repository, path)

    @property
    def url(self) -> str:
        """The text form."""
        return f"{_SCHEME}{self.repository}{self.path.decode()}"


@dataclass(frozen=True, slots=True)
class ThinLayer:
    """One layer: the digest of its blob in the source image, and where it is unpacked."""

    digest: ContentDigest
    location: LayerLocation


@dataclass(frozen=True, slots=True)
class ThinImage:
    """A ``thin.json``; ``layers`` are base first, ``origin`` is the source image as ``REFERENCE@DIGEST``."""

    layers: tuple[ThinLayer, ...]
    origin: str = ""
    comment: str = ""
    version: str = "1.0"
    min_version: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a descriptor.

        Raises ThinImageFormatError: not of this form, of an unsupported version, without layers, with the
        same layer twice, or with one that is not in CernVM-FS.
        """
        document = Document.parse("thin.json", data, ThinImageFormatError, limit=THIN_LIMIT)
        version = document.text("version")
        min_version = document.optional_text("min_version")
        _check_version(document, version, min_version)
        layers = tuple(_read_layer(layer) for layer in document.objects("layers"))
        if not layers:
            document.refuse("it has no layers")
        for what, distinct in (
            ("digest", {layer.digest for layer in layers}),
            ("location", {layer.location for layer in layers}),
        ):
            if len(distinct) < len(layers):
                document.refuse(f"two of its layers have the same {what}, which cannot be stacked")
        return cls(
            layers=layers,
            origin=document.optional_text("origin"),
            comment=document.optional_text("comment"),
            version=version,
            min_version=min_version,
        )

    @classmethod
    def read(cls, source: ByteSource) -> Self:
        """Parse the descriptor in ``source``, of which little more than the limit is ever read.

        Raises what ``parse`` and the source raise.
        """
        data = b""
        while len(data) <= THIN_LIMIT and (block := source.read(THIN_LIMIT + 1 - len(data))):
            data += block
        return cls.parse(data)

    def dump(self) -> bytes:
        """The document as bytes, always the same for the same content."""
        members: dict[str, Any] = {"version": self.version}
        if self.min_version:
            members["min_version"] = self.min_version
        members["origin"] = self.origin
        members["layers"] = [{"digest": layer.digest.hex, "url": layer.location.url} for layer in self.layers]
        if self.comment:
            members["comment"] = self.comment
        return json.dumps(members, indent=2).encode() + b"\n"


def _check_version(document: Document, version: str, min_version: str) -> None:
    """``version`` must have our major number; ``min_version`` is the oldest reader allowed."""
    form, least = _VERSION_FORM.fullmatch(version), _VERSION_FORM.fullmatch(min_version or "0")
    if form is None or least is None:
        document.refuse(f"{version[:40]!r}, {min_version[:40]!r} are not valid versions")
    if int(form[1]) != _VERSION[0] or (int(least[1]), int(least[2] or 0)) > _VERSION:
        document.refuse(
            f"its version is {min_version or version}, but this program supports only "
            f"{_VERSION[0]}.{_VERSION[1]}; install a newer one"
        )


def _read_layer(document: Document) -> ThinLayer:
    """One layer; its digest is bare hex digits, which some tools prefix with ``sha256:``."""
    text = document.text("digest")
    try:
        digest = ContentDigest.parse(text if ":" in text else f"sha256:{text}")
    except ReferenceFormatError as error:
        document.refuse(str(error))
    try:
        return ThinLayer(digest, LayerLocation.parse(document.text("url")))
    except ThinImageFormatError as error:
        document.refuse(str(error))
