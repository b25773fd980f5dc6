"""Digests, by which registries name content (OCI image specification, descriptor.md, "Digests").

Owns: the text form and the algorithms. Must not know: what is digested.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cvmfs_graphdriver.oci.errors import ReferenceFormatError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ContentDigest"]

_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
_FORM = re.compile(r"([a-z0-9]+):([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class ContentDigest:
    """An algorithm's name and lower-case hex digits.

    >>> ContentDigest.of(b"").hex[:8]
    'e3b0c442'
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``sha256:<64 hex digits>``, or SHA-384 or SHA-512 in the same form.

        Raises ReferenceFormatError: anything else.
        """
        match = _FORM.fullmatch(text)
        if match is None or len(match[2]) != _HEX_LENGTH.get(match[1]):
            raise ReferenceFormatError(f"{text[:200]!r} is not a digest, such as sha256:<64 hex digits>")
        return cls(match[1], match[2])

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The SHA-256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def hasher(self) -> "_Hash":
        """A new hasher of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
