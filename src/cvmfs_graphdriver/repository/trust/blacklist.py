"""The blacklist: certificates and revisions that must not be used (format reference, section 2.6).

Owns: its lines. Must not know: where blacklists lie.
"""

from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.keys import Fingerprint

__all__ = ["Blacklist"]


class Blacklist(NamedTuple):
    """Refused certificates, and per repository the lowest revision that is accepted."""

    fingerprints: frozenset[Fingerprint] = frozenset()
    least_revisions: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file. A line that is neither a fingerprint nor ``<NAME REVISION`` is ignored."""
        fingerprints = set()
        revisions = []
        for line in data.decode("utf-8", "replace").splitlines():
            text = line.split("#", 1)[0].strip()
            if text.startswith("<"):
                name, _, number = text[1:].strip().rpartition(" ")
                if name and number.isascii() and number.isdigit():
                    revisions.append((name.strip(), int(number[:20])))
            elif text:
                try:
                    fingerprints.add(Fingerprint.parse(text))
                except FormatError:
                    continue
        return cls(frozenset(fingerprints), tuple(revisions))

    def __or__(self, other: "Blacklist") -> "Blacklist":
        """Refuses what either of the two refuses."""
        return Blacklist(self.fingerprints | other.fingerprints, self.least_revisions + other.least_revisions)

    def refuses_revision(self, fqrn: str, revision: int) -> bool:
        """Whether this revision of the repository is too old to be used."""
        return any(name == fqrn and revision < least for name, least in self.least_revisions)
