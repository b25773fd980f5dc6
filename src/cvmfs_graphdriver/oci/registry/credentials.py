"""Credentials for registries, as stored by ``docker login`` (Docker's ``config.json``).

Owns: the file's members ``auths``, ``credHelpers`` and ``credsStore``, and the protocol of the helper
programs (docker-credential-helpers: ``get`` reads a server from standard input and answers with JSON). Must
not know: how credentials are presented to a registry.
"""

import base64
import binascii
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cvmfs_graphdriver.oci.document import Document
from cvmfs_graphdriver.oci.errors import CredentialsError
from cvmfs_graphdriver.oci.image.reference import DOCKER_HUB

__all__ = ["Credentials", "DockerConfig", "Keychain", "SingleCredentials", "default_docker_config"]

_HUB_SERVER = "https://index.docker.io/v1/"
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_HELPER_SECONDS = 60
_TOKEN_USER = "<token>"  # noqa: S105 - the user name with which helpers mark an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, or a token instead; never shown in messages."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """An OAuth 2 refresh token for the token server."""
    registry_token: str = ""
    """A bearer token for the registry itself."""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"


class Keychain(Protocol):
    """Where credentials come from."""

    def credentials_for(self, host: str) -> Credentials | None:
        """The credentials for the registry ``host[:port]``; None to be anonymous.

        Raises CredentialsError: there are some, but they cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class SingleCredentials:
    """Explicit credentials for one registry; every other host gets those of ``others``."""

    host: str
    credentials: Credentials
    others: Keychain

    def credentials_for(self, host: str) -> Credentials | None:
        return self.credentials if host == self.host else self.others.credentials_for(host)


def default_docker_config() -> Path:
    """This user's Docker configuration: ``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker``."""
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def _server_names(host: str) -> Iterator[str]:
    """The keys that a registry may have in ``config.json``, most common first."""
    names = ("index.docker.io", "docker.io", "registry-1.docker.io") if host == DOCKER_HUB else (host,)
    if host == DOCKER_HUB:
        yield _HUB_SERVER
    for name in names:
        yield name
        for scheme in ("https", "http"):
            for path in ("", "/", "/v1/", "/v2/"):
                yield f"{scheme}://{name}{path}"


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The credentials in one ``config.json``; a missing file has none."""

    path: Path

    def credentials_for(self, host: str) -> Credentials | None:
        """Ask the registry's own helper, then the general one, then look in the file."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialsError(
                f"cannot read Docker's credentials in {self.path}: {error.strerror}"
            ) from error
        document = Document.parse(str(self.path), data, CredentialsError)
        helpers = document.text_map("credHelpers")
        own_helper = next((helpers[name] for name in _server_names(host) if name in helpers), "")
        server = _HUB_SERVER if host == DOCKER_HUB else host
        for helper in filter(None, (own_helper, document.optional_text("credsStore"))):
            found = _ask_helper(helper, server)
            if found is not None:
                return found
        if document.members.get("auths") is None:
            return None
        auths = document.member("auths")
        for name in _server_names(host):
            if name in auths.members:
                return _read_auth(auths.member(name))
        return None


def _read_auth(entry: Document) -> Credentials | None:
    """Read one member of ``auths``; an empty one only says that a helper keeps the secret."""
    username, password = entry.optional_text("username"), entry.optional_text("password")
    encoded = entry.optional_text("auth")
    if encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise CredentialsError(f"{entry.name}: 'auth' is not base64 of NAME:PASSWORD") from error
        username, colon, password = decoded.partition(":")
        if not colon:
            entry.refuse("'auth' is not base64 of NAME:PASSWORD")
        password = password.rstrip("\0")
    found = Credentials(
        username, password, entry.optional_text("identitytoken"), entry.optional_text("registrytoken")
    )
    return None if found == Credentials() else found


def _ask_helper(helper: str, server: str) -> Credentials | None:
    """Run ``docker-credential-HELPER get``; None if it does not know ``server``."""
    if not _HELPER_NAME.fullmatch(helper):
        raise CredentialsError(
            f"{helper[:100]!r} in Docker's config.json is not a valid name of a credential helper"
        )
    program = f"docker-credential-{helper}"
    try:
        answer = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise CredentialsError(
            f"Docker's config.json names the credential helper {program}, which is not installed"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialsError(f"the credential helper {program} does not answer: {error}") from error
    if answer.returncode:
        text = answer.stdout.decode(errors="replace").strip()
        if "credentials not found" in text.lower():
            return None
        raise CredentialsError(f"the credential helper {program} failed for {server}: {text[:200]!r}")
    document = Document.parse(f"the answer of {program}", answer.stdout, CredentialsError)
    username, secret = document.text("Username"), document.text("Secret")
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret)
