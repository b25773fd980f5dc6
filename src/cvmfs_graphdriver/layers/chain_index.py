"""Finding an image's layers in a repository: by chain ID, or by the digest of a layer's blob.

Owns: the look-ups, the checks before a record is believed, and the reasons for finding nothing. It never
follows a link, and reads no file: a look-up costs nothing but catalogs. Must not know: containerd's labels,
mounts.

A record counts if its chain ID follows from its diffID and the chain below, and if its layer is there. The
repository's publisher vouches that the layer is the one with that diffID, as for everything in it.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.openat2 import open_beneath
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.image.chain import (
    CHAINS,
    ChainRecord,
    chain_id,
    record_directory,
    unpacked_directory,
)

__all__ = ["ChainIndex", "Miss", "MissReason", "Name"]


class MissReason(StrEnum):
    """Why a layer was not found; the values serve as labels of metrics."""

    NO_INDEX = "no-index"
    """The repository has no index of chains."""
    NO_RECORD = "no-record"
    """The index has no record of this chain."""
    NO_LAYER = "no-layer"
    """There is no such layer, or no longer."""
    WRONG_CHAIN = "wrong-chain"
    """The record is that of another chain, or the chain below is another one."""
    MALFORMED = "malformed"
    """The record is not of the documented form."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A layer that was not found: why, in one word and in a sentence."""

    reason: MissReason
    detail: str


class Name(NamedTuple):
    """What there is at a path: a directory, or a symbolic link with its target, or something else."""

    is_directory: bool
    link: bytes | None = None


class ChainIndex:
    """The layers of one repository.

    ``look`` returns what is at an absolute path, without following links, or None. What it raises passes
    through: the repository could not be asked.
    """

    def __init__(self, look: Callable[[bytes], Name | None]) -> None:
        self._look = look

    @classmethod
    def of_mount(cls, root: int) -> Self:
        """The index of the mounted repository whose root is open as ``root``; it raises OSError."""
        return cls(lambda path: _look_below(root, path))

    def by_chain(self, chain: ContentDigest, parent: ContentDigest | None) -> ChainRecord | Miss:
        """The topmost layer of ``chain``; ``parent`` is the chain below it, None for a base layer."""
        directory = record_directory(chain)
        links = []
        for name in (b"layer", b"diff"):
            found = self._look(directory + b"/" + name)
            if found is None:
                return self._no_record(chain)
            if found.link is None:
                return Miss(
                    MissReason.MALFORMED, f"{name.decode()!r} of the chain {chain} is not a symbolic link"
                )
            links.append(found.link)
        try:
            record = ChainRecord.parse(*links)
        except ThinImageFormatError as error:
            return Miss(MissReason.MALFORMED, f"chain {chain}: {error}")
        if chain_id(parent, record.diff_id) != chain:
            below = f"above the chain {parent}" if parent else "as a base layer"
            return Miss(
                MissReason.WRONG_CHAIN,
                f"the record of the chain {chain} is wrong: a layer with the diffID {record.diff_id} "
                f"has another chain ID {below}",
            )
        missing = self._no_layer(record.directory)
        return record if missing is None else missing

    def by_layer(self, digest: ContentDigest) -> bytes | Miss:
        """The absolute path of a layer, given the digest of its blob, in the layout of unpacked.cern.ch."""
        directory = unpacked_directory(digest)
        missing = self._no_layer(directory)
        return directory if missing is None else missing

    def _no_record(self, chain: ContentDigest) -> Miss:
        if self._look(CHAINS) is None:
            return Miss(MissReason.NO_INDEX, f"the repository has no {CHAINS.decode()}")
        if self._look(record_directory(chain)) is None:
            return Miss(MissReason.NO_RECORD, f"the repository has no record of the chain {chain}")
        return Miss(MissReason.MALFORMED, f"the record of the chain {chain} is incomplete")

    def _no_layer(self, directory: bytes) -> Miss | None:
        found = self._look(directory)
        if found is not None and found.is_directory:
            return None
        return Miss(MissReason.NO_LAYER, f"the repository has no layer {os.fsdecode(directory)}")


def _look_below(root: int, path: bytes) -> Name | None:
    try:
        descriptor = open_beneath(root, path.lstrip(b"/"), os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError, PathEscapeError):
        return None
    try:
        mode = os.fstat(descriptor).st_mode
        link = os.readlink(b"", dir_fd=descriptor) if stat.S_ISLNK(mode) else None
        return Name(stat.S_ISDIR(mode), link)
    finally:
        os.close(descriptor)
