"""The breadcrumb: the last known revision of a repository (CernVM-FS format reference, section 2.2).

Owns: the file ``cvmfschecksum.<fqrn>`` in the workspace. With it, a client refuses older revisions after a
restart, and mounts a cached revision when no server can be reached. Must not know: servers.
"""

import re
from pathlib import Path
from typing import NamedTuple, Self

from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.kernel.whole_file import write_whole_file
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Breadcrumb"]

_FORM = re.compile(r"([0-9a-z-]+)T([0-9]{1,19})(?:R([0-9]{1,20}))?")
_LIMIT = 4096


class Breadcrumb(NamedTuple):
    """The newest revision ever mounted: its root catalog, its publication time (Unix) and its number."""

    root: Digest
    timestamp: int
    revision: int

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The content of the file; None if it is absent or unreadable, which a client treats alike."""
        try:
            with path.open("rb") as file:
                match = _FORM.fullmatch(file.read(_LIMIT).decode("ascii").strip())
            if match is None:
                return None
            return cls(Digest.parse(match[1]), int(match[2]), int(match[3] or 0))
        except (OSError, UnicodeDecodeError, FormatError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file. Raises CacheError."""
        try:
            write_whole_file(path, f"{self.root}T{self.timestamp}R{self.revision}".encode())
        except OSError as error:
            raise CacheError(f"cannot write {path}: {error.strerror}") from error
