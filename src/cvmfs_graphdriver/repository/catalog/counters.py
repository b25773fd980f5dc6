"""The statistics of a catalog (CernVM-FS format reference, section 3.4).

Owns: which counters there are and how entries count. Must not know: SQL.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry, EntryFlag

__all__ = ["Counters", "Tally"]


@dataclass(slots=True)
class Tally:
    """Counts of entries by kind; sizes in uncompressed bytes."""

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    @property
    def entries(self) -> int:
        """How many entries of all kinds there are."""
        return self.regular + self.symlink + self.special + self.dir

    def count(self, entry: DirectoryEntry, chunks: int, sign: int = 1) -> None:
        """Count one entry in (``sign`` 1) or out (-1)."""
        if entry.is_directory:
            self.dir += sign
        elif entry.is_symlink:
            self.symlink += sign
        elif entry.is_special:
            self.special += sign
        else:
            self.regular += sign
            self.file_size += sign * entry.size
            if entry.is_chunked:
                self.chunked += sign
                self.chunks += sign * chunks
                self.chunked_size += sign * entry.size
            if EntryFlag.EXTERNAL in entry.flags:
                self.external += sign
                self.external_file_size += sign * entry.size
        if entry.xattr:
            self.xattr += sign

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)))


class Counters(NamedTuple):
    """What a catalog itself contains, and what all catalogs below it contain together."""

    self_: Tally
    subtree: Tally

    @classmethod
    def parse(cls, rows: Mapping[str, int]) -> Self:
        """From the ``statistics`` table; counters that an older schema lacks are 0."""
        names = [f.name for f in fields(Tally)]
        return cls(
            Tally(*(rows.get(f"self_{name}", 0) for name in names)),
            Tally(*(rows.get(f"subtree_{name}", 0) for name in names)),
        )

    def rows(self) -> dict[str, int]:
        """Name and value of each counter, as the table has them."""
        return {
            f"{part}_{f.name}": getattr(tally, f.name)
            for part, tally in (("self", self.self_), ("subtree", self.subtree))
            for f in fields(Tally)
        }

    @property
    def total(self) -> Tally:
        """This catalog and everything below it."""
        return self.self_ + self.subtree
