"""A registry: reading images, writing blobs and manifests (OCI distribution specification 1.1).

Owns: the addresses of manifests, blobs and tags, and the order of mirrors. Documents are verified here, blobs
while they stream. docs/adr/0022-registry-client.md says why the client is our own. Must not know: what layers
contain, where credentials come from.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.document import LIMIT, Document
from cvmfs_graphdriver.oci.errors import (
    ContentMismatchError,
    OciError,
    ReferenceFormatError,
    RegistryReplyError,
)
from cvmfs_graphdriver.oci.image.model import (
    MANIFEST_TYPES,
    ContentDescriptor,
    ImageManifest,
    Index,
    parse_manifest,
)
from cvmfs_graphdriver.oci.image.reference import ImageReference, is_tag
from cvmfs_graphdriver.oci.registry.blob import BlobStream
from cvmfs_graphdriver.oci.registry.connection import Connection
from cvmfs_graphdriver.oci.registry.credentials import Keychain
from cvmfs_graphdriver.oci.registry.transport import Reply, Transport

__all__ = ["Registry", "RegistryImage"]

_SMALL = 64 << 10
_TAGS_LIMIT = 16 << 20
_MAX_PAGES = 1000
_MAX_TAGS = 100_000
_NEXT_PAGE = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')

_T = TypeVar("_T")


def _pull(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull",)


def _push(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


class Registry:
    """One registry, usable by several threads."""

    def __init__(
        self, host: str, transport: Transport, keychain: Keychain, *, mirrors: Sequence[str] = ()
    ) -> None:
        """Talk to ``host[:port]``; reads try the ``mirrors`` first, in order."""
        self.host = host
        self._settings = transport.settings
        self._own = Connection(host, transport, keychain)
        self._readers = [*(Connection(mirror, transport, keychain) for mirror in mirrors), self._own]

    def manifest(self, reference: ImageReference) -> ImageManifest | Index:
        """What a reference names, verified by its digest if it has one.

        Raises ImageNotFoundError: there is no such image; and whatever a connection and the parser raise.
        """
        data, media_type = self._manifest(reference)
        return parse_manifest(f"manifest of {reference}", data, media_type)

    def manifest_bytes(self, reference: ImageReference) -> bytes:
        """The manifest's bytes."""
        return self._manifest(reference)[0]

    def blob(self, repository: str, descriptor: ContentDescriptor) -> BlobStream:
        """A blob as a self-verifying stream, which opens at the first read."""
        name = f"blob {descriptor.digest} of {self.host}/{repository}"
        path = f"{repository}/blobs/{descriptor.digest}"

        def open_at(offset: int) -> Reply:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            return self._read(
                lambda connection: connection.request(
                    "GET", path, scopes=_pull(repository), expect={200, 206}, what=name, headers=headers
                )
            )

        return BlobStream(name, descriptor, open_at, self._settings)

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository, without duplicates, in the registry's order.

        Raises ImageNotFoundError: there is no such repository. RegistryReplyError: its pages repeat or do not
        end, or it has unreasonably many tags.
        """
        what = f"the tags of {self.host}/{repository}"

        def read_pages(connection: Connection) -> list[str]:
            tags: dict[str, None] = {}
            path = f"{repository}/tags/list"
            seen = {path}
            for _ in range(_MAX_PAGES):
                reply = connection.request("GET", path, scopes=_pull(repository), expect={200}, what=what)
                page = Document.parse(what, reply.body(_TAGS_LIMIT), RegistryReplyError, limit=_TAGS_LIMIT)
                for tag in page.texts("tags"):
                    if not is_tag(tag):
                        raise RegistryReplyError(
                            f"registry {self.host} lists {tag[:200]!r} among {what}, which is not a valid tag"
                        )
                    tags[tag] = None
                if len(tags) > _MAX_TAGS:
                    raise RegistryReplyError(f"registry {self.host} lists more than {_MAX_TAGS} of {what}")
                next_page = _NEXT_PAGE.search(reply.header("Link"))
                if next_page is None:
                    return list(tags)
                path = next_page[1]
                if path in seen:
                    raise RegistryReplyError(
                        f"registry {self.host} lists {what} in circles: {path[:200]!r} comes again"
                    )
                seen.add(path)
            raise RegistryReplyError(f"registry {self.host} lists {what} on more than {_MAX_PAGES} pages")

        return self._read(read_pages)

    def has_blob(self, repository: str, digest: ContentDigest) -> bool:
        """Whether the registry has a blob, so that it need not be uploaded."""
        path = f"{repository}/blobs/{digest}"
        reply = self._own.request(
            "HEAD", path, scopes=_push(repository), expect={200, 404}, what=f"blob {digest}"
        )
        reply.close()
        return reply.status == 200

    def has_manifest(self, reference: ImageReference, digest: ContentDigest) -> bool:
        """Whether a reference already names the manifest with this digest."""
        reply = self._own.request(
            "HEAD",
            f"{reference.repository}/manifests/{reference.target}",
            scopes=_push(reference.repository),
            expect={200, 404},
            what=f"image {reference}",
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
        )
        reply.close()
        return reply.status == 200 and reply.header("Docker-Content-Digest") == str(digest)

    def upload_blob(self, repository: str, data: bytes) -> None:
        """Upload a blob unless the registry has it; raises whatever a connection raises."""
        digest = ContentDigest.of(data)
        if self.has_blob(repository, digest):
            return
        what = f"{self.host}/{repository} for writing"
        scopes = _push(repository)
        started = self._own.request(
            "POST", f"{repository}/blobs/uploads/", scopes=scopes, expect={202}, what=what, body=b""
        )
        started.body(_SMALL)
        location = started.header("Location")
        joint = "&" if "?" in location else "?"
        done = self._own.request(
            "PUT",
            f"{location}{joint}{urlencode({'digest': str(digest)})}",
            scopes=scopes,
            expect={201},
            what=what,
            headers={"Content-Type": "application/octet-stream"},
            body=data,
        )
        done.body(_SMALL)

    def upload_manifest(self, reference: ImageReference, data: bytes, media_type: str) -> ContentDigest:
        """Upload a manifest under a reference, last of all, since it makes the image visible.

        Raises ContentMismatchError: the registry stored something else.
        """
        reply = self._own.request(
            "PUT",
            f"{reference.repository}/manifests/{reference.target}",
            scopes=_push(reference.repository),
            expect={201},
            what=f"{reference} for writing",
            headers={"Content-Type": media_type},
            body=data,
        )
        reply.body(_SMALL)
        digest = ContentDigest.of(data)
        said = reply.header("Docker-Content-Digest")
        if said and said != str(digest):
            raise ContentMismatchError(
                f"registry {self.host} stored {reference} as {said!r} instead of {digest}"
            )
        return digest

    def _manifest(self, reference: ImageReference) -> tuple[bytes, str]:
        def fetch(connection: Connection) -> tuple[bytes, str]:
            reply = connection.request(
                "GET",
                f"{reference.repository}/manifests/{reference.target}",
                scopes=_pull(reference.repository),
                expect={200},
                what=f"image {reference}",
                headers={"Accept": ", ".join(MANIFEST_TYPES)},
            )
            data = reply.body(LIMIT)
            _check_manifest(reference, data, reply.header("Docker-Content-Digest"))
            return data, reply.header("Content-Type")

        return self._read(fetch)

    def _read(self, action: Callable[[Connection], _T]) -> _T:
        """Try the mirrors in turn, then the registry, whose answer is final."""
        for mirror in self._readers[:-1]:
            try:
                return action(mirror)
            except OciError:
                # A mirror that is down, empty or broken is no reason to fail: it is only a shortcut.
                continue
        return action(self._own)


def _check_manifest(reference: ImageReference, data: bytes, said: str) -> None:
    """Compare a manifest with the digest in its reference, or else with the one the registry states."""
    expected = reference.digest
    if expected is None and said:
        try:
            expected = ContentDigest.parse(said)
        except ReferenceFormatError as error:
            raise RegistryReplyError(
                f"registry {reference.host} states an invalid digest for {reference}: {error}"
            ) from error
    if expected is None:
        return
    hasher = expected.hasher()
    hasher.update(data)
    if hasher.hexdigest() != expected.hex:
        raise ContentMismatchError(
            f"the manifest of {reference} does not match its digest: expected {expected}, "
            f"it has {expected.algorithm}:{hasher.hexdigest()}"
        )


@dataclass(frozen=True, slots=True)
class RegistryImage:
    """An image in a registry, as a source."""

    registry: Registry
    reference: ImageReference

    @property
    def name(self) -> str:
        return str(self.reference)

    def root(self) -> ImageManifest | Index:
        return self.registry.manifest(self.reference)

    def manifest(self, descriptor: ContentDescriptor) -> bytes:
        return self.registry.manifest_bytes(self.reference.with_digest(descriptor.digest))

    def blob(self, descriptor: ContentDescriptor) -> BlobStream:
        return self.registry.blob(self.reference.repository, descriptor)
