"""What to mount, where and how, and the answer: what is said once, at the beginning of a mount.

Owns: the request as a message of ``kernel.channel``, and the meaning of an answer. Must not know: who sends
them.

An answer is a dictionary. It has ``error``, a text, and ``code``, an exit status, if the repository cannot be
mounted; otherwise the options of the mount, if it is a server that answers.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.planes.errors import MountPointError, ServerError

__all__ = ["MountRequest", "no_longer_for_everybody", "receive_answer", "refusal"]


class MountRequest(NamedTuple):
    """Mount the repository ``fqrn`` at ``target``.

    ``etc`` is the directory of its configuration, which ``overrides`` take precedence over. ``whiteouts``:
    show layers in the form that overlayfs needs; ``triggers``: add the fetch trigger
    (``planes.erofs.trigger``); ``suid``: honour setuid bits even if the configuration does not. ``threads``
    is how many requests can wait for the network at once without delaying others.
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
                raise MountPointError(f"cannot mount at {target}: it is not a directory; create it first")
        except OSError as error:
            raise MountPointError(
                f"cannot mount at {target}: {error.strerror}; if something is mounted there, unmount it first"
            ) from error

    def message(self) -> dict[str, object]:
        """The request as a channel can send it."""
        values = {**self._asdict(), "target": os.fspath(self.target), "etc": os.fspath(self.etc)}
        return {**values, "overrides": dict(self.overrides)}

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> Self:
        """The request in a message."""
        return cls(**{**message, "target": Path(message["target"]), "etc": Path(message["etc"])})


def no_longer_for_everybody(fqrn: str) -> ServerError:
    """The error of a repository that demands a membership, while everybody may use its mount."""
    return ServerError(
        f"{fqrn} now demands a membership, and everybody may use its mount: mount it again, for root alone"
    )


def refusal(error: Exception, code: int) -> dict[str, object]:
    """The answer that the repository cannot be mounted."""
    return {"error": str(error), "code": code}


def receive_answer(fqrn: str, channel: Channel) -> dict[str, Any]:
    """Wait for the answer. Raises ServerError: it is a refusal, or there is none."""
    try:
        answer: dict[str, Any] = channel.receive()
    except EOFError:
        raise ServerError(f"cannot mount {fqrn}: its server died at once; see its log") from None
    if "error" in answer:
        raise ServerError(answer["error"], answer["code"])
    return answer
