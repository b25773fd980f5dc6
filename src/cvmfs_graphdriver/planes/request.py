"""What to mount, where and how: the one message from whoever wants a mount to the process that keeps it.

Owns: its form as one line of JSON. Must not know: who sends it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

__all__ = ["MountRequest"]


@dataclass(frozen=True, slots=True)
class MountRequest:
    """Mount the repository ``fqrn`` at ``target``.

    ``etc`` is where its configuration lies, ``overrides`` win over it. ``whiteouts``: show layers as
    overlayfs wants to see them; ``triggers``: fetch files for whoever looks for them in the directories of
    ``trigger``; ``suid``: setuid bits count (also if the configuration says no).
    ``threads`` is how many requests can wait for the network at once without holding up others.
    """

    fqrn: str
    target: Path
    etc: Path = Path("/etc/cvmfs")
    overrides: Mapping[str, str] = field(default_factory=dict)
    whiteouts: bool = False
    triggers: bool = False
    suid: bool = False
    threads: int = 32

    def dump(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self), default=str).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """The request in a line made by ``dump``."""
        values = json.loads(line)
        return cls(**{**values, "target": Path(values["target"]), "etc": Path(values["etc"])})
