"""The names of images: ``[host[:port]/]path[:tag][@digest]`` (distribution's reference grammar).

Owns: the grammar and Docker's defaults (``docker.io``, ``library/``, ``latest``).
Must not know: how to talk to a registry.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ReferenceFormatError

__all__ = ["DOCKER_HUB", "ImageReference", "is_tag"]

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_MAX_PATH = 255


def _split_host(text: str) -> tuple[str, str]:
    """Docker's rule: the first component is the host if it looks like one, else it belongs to the path."""
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or any(mark in first for mark in ".:") or first != first.lower()):
        return first, rest
    return "", text


def is_tag(text: str) -> bool:
    """Whether ``text`` is a valid tag."""
    return _TAG.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image in a registry, by tag, by digest, or by both (the digest then decides).

    >>> str(ImageReference.parse("debian"))
    'docker.io/library/debian:latest'
    >>> ImageReference.parse("localhost:5000/a/b:c").host
    'localhost:5000'
    """

    host: str
    repository: str
    tag: str = ""
    digest: ContentDigest | None = None

    @classmethod
    def parse(cls, text: str, *, default_host: str = DOCKER_HUB) -> Self:
        """Parse a reference; ``default_host`` is the registry if it names none.

        Raises ReferenceFormatError: a part does not fit the grammar.
        """

        def refuse(problem: str) -> ReferenceFormatError:
            return ReferenceFormatError(
                f"{text[:300]!r} is not a valid image name: {problem}; "
                "write [HOST[:PORT]/]NAME[:TAG][@DIGEST]"
            )

        name, at, digest_text = text.partition("@")
        digest = ContentDigest.parse(digest_text) if at else None
        tag = ""
        head, colon, last = name.rpartition(":")
        if colon and "/" not in last:
            name, tag = head, last
            if not is_tag(tag):
                raise refuse(f"{tag[:200]!r} is not a valid tag")
        host, path = _split_host(name)
        host = host or default_host
        if host in _HUB_NAMES:
            host = DOCKER_HUB
        if not _HOST.fullmatch(host):
            raise refuse(f"{host[:200]!r} is not a valid host")
        if not _PATH.fullmatch(path) or len(path) > _MAX_PATH:
            raise refuse(f"{path[:300]!r} is not a valid repository (lower case only)")
        if host == DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        return cls(host, path, tag or ("" if digest else "latest"), digest)

    @property
    def target(self) -> str:
        """What to ask a registry for: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    def with_tag(self, tag: str) -> Self:
        """The same repository with another tag."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: ContentDigest) -> Self:
        """The same repository with a digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
