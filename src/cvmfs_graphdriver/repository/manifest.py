"""The manifest, ``.cvmfspublished``: it names the root catalog (format reference, section 2.2).

Owns: the fields and their text form. Must not know: signatures; ``trust`` does the proving.
"""

from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["REVISION_LIMIT", "SIZE_LIMIT", "TIMESTAMP_LIMIT", "Manifest"]

_ROOT_KEY = "d41d8cd98f00b204e9800998ecf8427e"

# The greatest values that all users of a manifest can work with: waits of threads, integers of SQLite, dates
# that have a calendar.
_TTL_LIMIT = 2**31 - 1
REVISION_LIMIT = 2**62
SIZE_LIMIT = 2**40
TIMESTAMP_LIMIT = 253_402_300_799


class Manifest(NamedTuple):
    """One revision, as published.

    ``root_size`` is the root catalog's size in bytes uncompressed (0: not said), ``ttl`` in seconds,
    ``timestamp`` the unix time of publishing (0: not said). Digests are None where the letter is absent.
    """

    root: Digest
    ttl: int
    revision: int
    fqrn: str = ""
    root_size: int = 0
    certificate: Digest | None = None
    history: Digest | None = None
    metainfo: Digest | None = None
    reflog: Digest | None = None
    micro_catalog: Digest | None = None
    timestamp: int = 0
    garbage_collectable: bool = False
    alternative_paths: bool = False

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the lines before the signature; unknown letters are ignored.

        Raises FormatError: a required letter is missing, a value has not the form of its letter.
        """
        fields = _split(body)
        for letter, meaning in (("C", "root catalog"), ("R", "root path"), ("D", "TTL"), ("S", "revision")):
            if letter not in fields:
                raise FormatError(f"the manifest lacks line {letter} ({meaning})")
        if fields["R"] != _ROOT_KEY:
            raise FormatError(f"the manifest's root path key is {fields['R']!r}, not that of the root")
        return cls(
            root=Digest.parse(fields["C"]),
            ttl=_number(fields, "D", _TTL_LIMIT),
            revision=_number(fields, "S", REVISION_LIMIT),
            fqrn=fields.get("N", ""),
            root_size=_number(fields, "B", SIZE_LIMIT),
            certificate=_digest(fields, "X"),
            history=_digest(fields, "H"),
            metainfo=_digest(fields, "M"),
            reflog=_digest(fields, "Y"),
            micro_catalog=_digest(fields, "L"),
            timestamp=_number(fields, "T", TIMESTAMP_LIMIT),
            garbage_collectable=_yes(fields, "G"),
            alternative_paths=_yes(fields, "A"),
        )

    def export(self) -> bytes:
        """The lines in the order in which stock tools write them; absent digests are left out."""
        lines = [
            f"C{self.root}",
            f"B{self.root_size}",
            f"R{_ROOT_KEY}",
            f"D{self.ttl}",
            f"S{self.revision}",
            f"G{'yes' if self.garbage_collectable else 'no'}",
            f"A{'yes' if self.alternative_paths else 'no'}",
        ]
        if self.micro_catalog:
            lines.append(f"L{self.micro_catalog}")
        lines.append(f"N{self.fqrn}")
        optional = (("X", self.certificate), ("H", self.history))
        lines += [f"{letter}{digest}" for letter, digest in optional if digest]
        lines.append(f"T{self.timestamp}")
        optional = (("M", self.metainfo), ("Y", self.reflog))
        lines += [f"{letter}{digest}" for letter, digest in optional if digest]
        return ("\n".join(lines) + "\n").encode()


def _split(body: bytes) -> dict[str, str]:
    """Values by letter; the last value of a letter counts, as in the reference client."""
    try:
        lines = body.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError("the manifest is not text") from error
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            fields[line[0]] = line[1:]
    return fields


def _number(fields: dict[str, str], letter: str, greatest: int) -> int:
    text = fields.get(letter, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= greatest):
        raise FormatError(
            f"the manifest's line {letter} holds {text[:40]!r}, which is not a number up to {greatest}"
        )
    return int(text)


def _digest(fields: dict[str, str], letter: str) -> Digest | None:
    text = fields.get(letter)
    if not text:
        return None
    digest = Digest.parse(text)
    return digest if any(digest.raw) else None


def _yes(fields: dict[str, str], letter: str) -> bool:
    return fields.get(letter, "no") == "yes"
