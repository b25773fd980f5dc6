"""How the commands reach images: the registries of one invocation, as set on the command line.

Owns: the address of the default registry, the credentials, and a shared connection pool. Must not know: what
is done with images.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click

from cvmfs_graphdriver.oci.image.archive import ArchiveImage
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.reference import DOCKER_HUB, ImageReference
from cvmfs_graphdriver.oci.image.source import ImageSource
from cvmfs_graphdriver.oci.registry.credentials import (
    Credentials,
    DockerConfig,
    Keychain,
    SingleCredentials,
    default_docker_config,
)
from cvmfs_graphdriver.oci.registry.registry import Registry, RegistryImage
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings

__all__ = ["Access", "RegistryAddress", "password_from_stdin"]

_MAX_PASSWORD = 64 << 10


def password_from_stdin() -> str:
    """The first line of standard input."""
    return sys.stdin.readline(_MAX_PASSWORD).rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """A registry's address; ``plain`` if it was given as ``http://``."""

    host: str = DOCKER_HUB
    plain: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``HOST[:PORT]``, or a URL that may end in ``/v2``, as older tools require."""
        scheme, separator, rest = text.rpartition("://")
        host, _, path = rest.rstrip("/").partition("/")
        if (separator and scheme not in {"http", "https"}) or path not in {"", "v2"}:
            raise click.UsageError(
                f"{text!r} is not a valid registry address, such as https://registry.example.org"
            )
        # Parsing any reference with it brings the host into the form that references use.
        return cls(ImageReference.parse("any", default_host=host).host, plain=scheme == "http")


class Access:
    """The registries of one invocation."""

    def __init__(
        self,
        *,
        address: RegistryAddress,
        mirrors: Sequence[RegistryAddress] = (),
        login: tuple[str, str] | None = None,
        docker_config: Path | None = None,
        ca_file: Path | None = None,
        insecure_hosts: frozenset[str] = frozenset(),
        allow_private_redirects: bool = False,
    ) -> None:
        """``login`` is user name and password for the registry at ``address``. Raises as Transport does."""
        self._host = address.host
        self._mirrors = [mirror.host for mirror in mirrors]
        plain = {each.host for each in (address, *mirrors) if each.plain}
        settings = TransportSettings(
            ca_file=ca_file,
            insecure_hosts=insecure_hosts | plain,
            allow_private_redirects=allow_private_redirects,
        )
        self._transport = Transport(settings)
        config = docker_config / "config.json" if docker_config else default_docker_config()
        self._keychain: Keychain = DockerConfig(config)
        if login:
            self._keychain = SingleCredentials(address.host, Credentials(*login), self._keychain)

    def reference(self, text: str) -> ImageReference:
        """Parse a reference; without a host, it is in the default registry."""
        return ImageReference.parse(text, default_host=self._host)

    def registry(self, host: str, login: tuple[str, str] | None = None) -> Registry:
        """A registry, optionally with user name and password; only the default one has mirrors."""
        mirrors = self._mirrors if host == self._host else ()
        keychain = SingleCredentials(host, Credentials(*login), self._keychain) if login else self._keychain
        return Registry(host, self._transport, keychain, mirrors=mirrors)

    def source(self, text: str) -> ImageSource:
        """The image ``oci:DIR[:TAG]``, ``docker-archive:FILE[:NAME]``, or one in a registry."""
        kind, _, place = text.partition(":")
        if kind == "oci":
            directory, _, tag = place.partition(":")
            return LayoutImage(Path(directory), tag)
        if kind == "docker-archive":
            file, _, name = place.partition(":")
            return ArchiveImage(Path(file), name)
        reference = self.reference(text)
        return RegistryImage(self.registry(reference.host), reference)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()
