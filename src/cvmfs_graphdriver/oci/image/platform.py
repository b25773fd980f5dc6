"""Platforms, and which image of an index suits one (OCI image specification, image-index.md).

Owns: names, their normal form, and the order of preference. Must not know: how an index is fetched.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cvmfs_graphdriver.oci.errors import ReferenceFormatError

__all__ = ["Platform"]

_MACHINES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
_USUAL_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and an architecture, as Go names them; ``variant`` is empty for the usual one.

    >>> Platform.parse("linux/arm64/v8")
    Platform(os='linux', architecture='arm64', variant='')
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``os/architecture[/variant]``, or an architecture alone (meaning Linux).

        Raises ReferenceFormatError: empty parts or too many of them.
        """
        parts = text.lower().split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if len(parts) > 3 or not all(parts):
            raise ReferenceFormatError(
                f"{text[:200]!r} is not a valid platform; write OS/ARCHITECTURE[/VARIANT]"
            )
        return cls.normal(*parts)

    @classmethod
    def normal(cls, os: str, architecture: str, variant: str = "") -> Self:
        """The platform in normal form: Go's name of the architecture, no variant if it is the usual one."""
        architecture, implied = _MACHINES.get(architecture, (architecture, ""))
        variant = variant or implied
        if variant and not variant.startswith("v"):
            variant = f"v{variant}"
        return cls(os, architecture, "" if variant == _USUAL_VARIANT.get(architecture) else variant)

    @classmethod
    def local(cls) -> Self:
        """The platform of this machine."""
        return cls.normal("linux", platform.machine().lower())

    def choose(self, offered: Sequence["Platform | None"]) -> int | None:
        """The position of the ``offered`` platform that suits this one best; None if none does.

        The same platform comes first, then older variants, newest first.
        """
        for wanted in self._acceptable():
            for position, candidate in enumerate(offered):
                if candidate == wanted:
                    return position
        return None

    def _acceptable(self) -> list["Platform"]:
        """This platform and those whose programs it can also run, best first."""
        full = self.variant or _USUAL_VARIANT.get(self.architecture, "")
        lowest = {"arm": 5, "amd64": 1}.get(self.architecture)
        if lowest is None or not full[1:].isdecimal():
            return [self]
        return [
            Platform.normal(self.os, self.architecture, f"v{number}")
            for number in range(min(int(full[1:]), 9), lowest - 1, -1)
        ]

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")
