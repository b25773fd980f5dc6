"""The fixtures' repositories, unpacked, with what tests of this room ask of them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import ObjectName
from cvmfs_graphdriver.repository.trust.keys import PublicKey, load_public_keys
from tests.support.project import FIXTURES, require_fixtures

__all__ = ["NAMES", "Published", "unpack"]

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/fqrn"))


@dataclass(frozen=True, slots=True)
class Published:
    """One repository as a server would serve it."""

    fqrn: str
    root: Path
    keys: list[PublicKey]

    def stored(self, name: str) -> bytes:
        """A file below the repository's root, as it is."""
        return (self.root / name).read_bytes()

    def content(self, name: ObjectName) -> bytes:
        """An object, decompressed."""
        return decompress(self.stored(name.path))


def unpack(name: str, where: Path) -> Published:
    """Unpack the fixture ``name``."""
    fixture = require_fixtures() / name
    fqrn = (fixture / "fqrn").read_text().strip()
    # Not by tarfile: Debian 12's cannot filter, and later ones warn if nobody does.
    subprocess.run(["tar", "--extract", "--file", fixture / "repo.tar.gz", "--directory", where], check=True)
    (key,) = fixture.glob("*.pub")
    return Published(fqrn, where / "cvmfs" / fqrn, load_public_keys(key.read_bytes()))
