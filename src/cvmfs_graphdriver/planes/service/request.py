"""What to mount, where and how: the one message from whoever wants a mount to the process that keeps it.

Owns: its form as one line of JSON, and that of the answer. Must not know: who sends it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from cvmfs_graphdriver.planes.errors import MountPointError, ServerError

__all__ = ["MountRequest", "no_longer_for_everybody", "parse_answer"]


class MountRequest(NamedTuple):
    """Mount the repository ``fqrn`` at ``target``.

    ``etc`` is where its configuration lies, ``overrides`` win over it. ``whiteouts``: show layers as
    overlayfs wants to see them; ``triggers``: fetch files for whoever looks for them in the directories of
    ``trigger``; ``suid``: setuid bits count (also if the configuration says no).
    ``threads`` is how many requests can wait for the network at once without holding up others.
    """

    fqrn: str
    target: Path
    etc: Path = Path("/etc/cvmfs")
    overrides: Mapping[str, str] = MappingProxyType({})
    whiteouts: bool = False
    triggers: bool = False
    suid: bool = False
    threads: int = 32

    @property
    def shows_layers(self) -> bool:
        """Whether it is for overlayfs, which reads it with root's rights for whoever is in the container."""
        return self.whiteouts or self.triggers

    def check_target(self) -> None:
        """Raise MountPointError unless ``target`` is a directory that answers."""
        target = self.target
        try:
            if not target.is_dir():
                raise MountPointError(f"cannot mount at {target}: it is no directory; make it first")
        except OSError as error:
            raise MountPointError(
                f"cannot mount at {target}: {error.strerror}; if something is mounted there, unmount it first"
            ) from error

    def dump(self) -> bytes:
        """One line of JSON."""
        values = {**self._asdict(), "overrides": dict(self.overrides)}
        return json.dumps(values, default=str).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """The request in a line made by ``dump``."""
        values = json.loads(line)
        return cls(**{**values, "target": Path(values["target"]), "etc": Path(values["etc"])})


def no_longer_for_everybody(fqrn: str) -> ServerError:
    """The error of a repository that demands a membership, while everybody may use its mount."""
    return ServerError(
        f"{fqrn} demands a membership by now, and everybody may use its mount: mount it again, for root alone"
    )


def parse_answer(fqrn: str, line: bytes) -> dict[str, Any]:
    """The values in an answer. Raises ServerError: it tells of an error, or nothing at all."""
    if not line:
        raise ServerError(f"{fqrn} cannot be mounted: its server died at once; see its log")
    values: dict[str, Any] = json.loads(line)
    if "error" in values:
        raise ServerError(values["error"], values["code"])
    return values
