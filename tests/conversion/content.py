"""What a repository holds, read through our catalogs from its storage, every object verified."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cvmfs_graphdriver.oci.model import Layer
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.local import LocalStorage
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.repository.catalog import Catalog
from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import DirectoryEntry

__all__ = ["FQRN", "SilentProgress", "Site", "content_of", "tree_of"]

FQRN = "images.example.org"


class Site:
    """A new repository in ``directory``, with its storage and keys."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.storage, self.keys, self._clock = directory / "storage", directory / "keys", clock
        create_repository(FQRN, LocalStorage.create(self.storage), self.keys, clock=clock)

    def open(self) -> Repository:
        repository = Repository.open(FQRN, LocalStorage(self.storage), self.keys)
        repository.clock = self._clock
        return repository

    @property
    def options(self) -> list[str]:
        """What makes the commands find it."""
        return ["-r", FQRN, "--storage", str(self.storage), "--keys", str(self.keys)]

    def files(self) -> dict[str, bytes]:
        """Every file of the storage, but for locks and the like."""
        found = (path for path in self.storage.rglob("*") if path.is_file() and "txn" not in path.parts)
        return {str(path.relative_to(self.storage)): path.read_bytes() for path in found}


class SilentProgress:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.bytes = 0
        self.finished: list[str] = []

    def begin(self, name: str, layers: Sequence[Layer]) -> None:  # noqa: ARG002
        self.begun += [str(layer.descriptor.digest) for layer in layers]

    def advance(self, layer: Layer, count: int) -> None:  # noqa: ARG002
        self.bytes += count

    def finish(self, layer: Layer) -> None:
        self.finished.append(str(layer.descriptor.digest))


def tree_of(repository: Repository, top: bytes = b"") -> dict[bytes, tuple[DirectoryEntry, bytes]]:
    """Every entry at and below ``top`` by its path below it, with the content of files."""
    with tempfile.TemporaryDirectory() as scratch:
        found = dict(_walk(repository, Path(scratch), b"", repository.manifest().root, top))
    return {path[len(top) :]: value for path, value in found.items()}


def _walk(
    repository: Repository, scratch: Path, mountpoint: bytes, root: Digest, top: bytes
) -> Iterator[tuple[bytes, tuple[DirectoryEntry, bytes]]]:
    catalog = Catalog.open(
        repository.unpack(ObjectName(root, Suffix.CATALOG), scratch), mountpoint=mountpoint
    )
    try:
        nested = {reference.path: reference.digest for reference in catalog.nested()}
        pending = [mountpoint]
        while pending:
            path = pending.pop()
            if path in nested and path != mountpoint:
                yield from _walk(repository, scratch, path, nested[path], top)
                continue
            entry = catalog.lookup(path)
            assert entry is not None
            if path == top or path.startswith(top + b"/"):
                yield path, (entry, content_of(repository, catalog, path, entry))
            if entry.is_directory:
                pending += [path + b"/" + child.name for child in catalog.listing(path)]
    finally:
        catalog.close()


def content_of(repository: Repository, catalog: Catalog, path: bytes, entry: DirectoryEntry) -> bytes:
    if not entry.is_regular:
        return b""
    if entry.is_chunked:
        names = [ObjectName(chunk.digest, Suffix.PARTIAL) for chunk in catalog.chunks(path)]
    else:
        assert entry.digest is not None
        names = [ObjectName(entry.digest)]
    stored = []
    for name in names:
        data = repository.storage.get(name.path, limit=1 << 30)
        assert data is not None
        assert Digest.of(data, name.digest.algorithm) == name.digest
        stored.append(decompress(data, entry.compression, limit=1 << 30))
    return b"".join(stored)
