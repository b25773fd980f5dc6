"""What containerd knows of an image: its manifest and configuration, by which its chains are found.

Owns: asking containerd's images and content services; whatever it answers is bounded and verified as if it
came from a registry. Must not know: snapshots.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.document import LIMIT
from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.model import ContentDescriptor, Image, ImageManifest, Index, parse_manifest
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.oci.verify import Verifier
from cvmfs_graphdriver.snapshotter.errors import SnapshotterError
from cvmfs_graphdriver.snapshotter.messages import message

__all__ = ["find_image"]

_SERVICES: Final = "containerd.services"
_PATIENCE: Final = 10.0


def find_image(socket: Path, name: str) -> tuple[str, Image] | None:
    """The namespace that has an image of this name, and the image for this machine; None if none has it.

    Docker's short names are understood. Raises SnapshotterError: containerd cannot be asked. OciError: the
    image is not complete, or not valid.
    """
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        client = _Client(channel, socket)
        for namespace in client.namespaces():
            for full in _names_of(name):
                target = client.target(namespace, full)
                if target is not None:
                    return namespace, load_image(_StoredImage(client, namespace, full, target), None)
    return None


def _names_of(name: str) -> list[str]:
    """What containerd may call an image: as it is written, or as Docker would complete it."""
    try:
        return list(dict.fromkeys((name, str(ImageReference.parse(name)))))
    except ReferenceFormatError:
        return [name]


class _Client:
    """Calls of containerd's services."""

    def __init__(self, channel: grpc.Channel, socket: Path) -> None:
        self._channel = channel
        self._socket = socket

    def namespaces(self) -> list[str]:
        answers = self._answers("namespaces.v1.Namespaces/List", "ListNamespaces", "")
        return [namespace.name for answer in answers for namespace in answer.namespaces]

    def target(self, namespace: str, name: str) -> ContentDescriptor | None:
        """What an image's name stands for; None if there is no such image."""
        for answer in self._answers("images.v1.Images/Get", "GetImage", namespace, name=name):
            found = answer.image.target
            return ContentDescriptor(found.media_type, ContentDigest.parse(found.digest), found.size)
        return None

    def content(self, namespace: str, descriptor: ContentDescriptor, name: str) -> bytes:
        """A document, verified."""
        fields = {"digest": str(descriptor.digest), "size": LIMIT}
        verifier = Verifier(name, descriptor.digest, min(descriptor.size, LIMIT))
        parts = []
        for answer in self._answers("content.v1.Content/Read", "ReadContent", namespace, **fields):
            verifier.update(answer.data)
            parts.append(answer.data)
        if not parts:
            raise SnapshotterError(f"containerd does not have the {name}: pull the image again")
        verifier.finish()
        return b"".join(parts)

    def _answers(self, method: str, kind: str, namespace: str, **fields: Any) -> Iterator[Any]:
        """The answers to a call; none if what is asked for does not exist."""
        package = f"{_SERVICES}.{method.rpartition('.')[0]}"
        invoke = self._channel.unary_stream(
            f"/{_SERVICES}.{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(f"{package}.{kind}Response").FromString,
        )
        request = message(f"{package}.{kind}Request")(**fields)
        metadata = (("containerd-namespace", namespace),) if namespace else None
        try:
            yield from invoke(request, timeout=_PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise SnapshotterError(
                    f"cannot ask containerd at {self._socket}: {error.details()}; is it running there?"
                ) from error


@dataclass(frozen=True, slots=True)
class _StoredImage:
    """An image in containerd's content store, as a source."""

    client: _Client
    namespace: str
    name: str
    target: ContentDescriptor

    def root(self) -> ImageManifest | Index:
        """What the name stands for."""
        data = self.manifest(self.target)
        return parse_manifest(f"the manifest of {self.name}", data, self.target.media_type)

    def manifest(self, descriptor: ContentDescriptor) -> bytes:
        """A manifest, verified."""
        return self.client.content(self.namespace, descriptor, f"manifest {descriptor.digest} of {self.name}")

    def blob(self, descriptor: ContentDescriptor) -> io.BytesIO:
        """A configuration, verified."""
        return io.BytesIO(
            self.client.content(self.namespace, descriptor, f"blob {descriptor.digest} of {self.name}")
        )
