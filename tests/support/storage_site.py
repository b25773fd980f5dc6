"""A repository in a scratch directory, with what tests of this room ask of it."""

import functools
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from cvmfs_graphdriver.publisher.care.check import RepositoryCheck
from cvmfs_graphdriver.publisher.contents import read_object
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.interface import ContentReader, Storage
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry
from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.trust.keys import load_public_keys
from cvmfs_graphdriver.repository.trust.signing import SigningKey

__all__ = ["FQRN", "Entries", "Site"]

FQRN = "images.example.org"
Entries = Iterable[tuple[TreeEntry, ContentReader | None]]


@functools.cache
def _keys() -> tuple[SigningKey, SigningKey]:
    return SigningKey.generate(), SigningKey.generate()


class Site:
    """A new repository below ``place``; ``clock`` is its time, to be set."""

    def __init__(self, place: Path, options: RepositoryOptions | None = None) -> None:
        self.place = place
        self.storage = place / "storage"
        self.keys = place / "keys"
        self.options = options or RepositoryOptions()
        self.clock = 1_700_000_000.0
        # Making keys takes longer than most tests.
        with mock.patch.object(SigningKey, "generate", side_effect=_keys()):
            create_repository(
                FQRN, LocalStorage.create(self.storage), self.keys, self.options, clock=lambda: self.clock
            )

    def at(self) -> Storage:
        """The storage, opened anew."""
        return LocalStorage(self.storage)

    def open(self) -> Repository:
        repository = Repository.open(FQRN, self.at(), self.keys, self.options)
        repository.clock = lambda: self.clock
        return repository

    def publish(self, trees: dict[bytes, Entries], *, remove: Iterable[bytes] = ()) -> Repository:
        """Publish one revision, a second later than the last one."""
        self.clock += 1
        repository = self.open()
        with Transaction(repository) as transaction:
            for path in remove:
                transaction.remove(path)
            for path, entries in trees.items():
                transaction.ingest(path, entries)
            transaction.publish()
        return repository

    def sign_for_today(self) -> Repository:
        """From now on it is today, and the whitelist is valid: commands have no other clock."""
        self.clock = time.time()
        repository = self.open()
        repository.resign()
        return repository

    def findings(self, *, contents: bool = True) -> list[str]:
        """What checking it finds."""
        return list(self.check(contents=contents).run())

    def check(self, *, contents: bool = True) -> RepositoryCheck:
        keys = load_public_keys((self.keys / f"{FQRN}.pub").read_bytes())
        now = datetime.fromtimestamp(self.clock, UTC)
        return RepositoryCheck(self.at(), FQRN, keys, now=now, contents=contents)

    def files(self) -> dict[str, bytes]:
        """Every file of the storage but the lock."""
        found = (path for path in self.storage.rglob("*") if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(self.storage)): path.read_bytes() for path in found}

    def tree(self, top: bytes = b"") -> dict[bytes, tuple[DirectoryEntry, bytes]]:
        """Every entry at and below ``top`` by its path below it, with the content of files."""
        found = dict(self._walk(b"", self.open().manifest().root))
        return {
            path[len(top) :]: value
            for path, value in found.items()
            if path == top or path.startswith(top + b"/")
        }

    def names(self, top: bytes = b"") -> set[bytes]:
        return set(self.tree(top))

    def catalog(self, mountpoint: bytes = b"") -> Catalog:
        """The catalog mounted at a path, open; the caller closes it."""
        at, digest = b"", self.open().manifest().root
        while True:
            catalog = self._open_catalog(at, digest)
            if at == mountpoint:
                return catalog
            reference = catalog.nested_for(mountpoint)
            catalog.close()
            assert reference is not None
            at, digest = reference.path, reference.digest

    def _open_catalog(self, mountpoint: bytes, digest: Digest) -> Catalog:
        path = self.place / f"{digest.hex}.db"
        path.write_bytes(read_object(self.at(), ObjectName(digest, Suffix.CATALOG)))
        return Catalog.open(path, mountpoint=mountpoint)

    def _walk(self, at: bytes, digest: Digest) -> Iterator[tuple[bytes, tuple[DirectoryEntry, bytes]]]:
        catalog = self._open_catalog(at, digest)
        nested = {reference.path: reference.digest for reference in catalog.nested()}
        root = catalog.lookup(at)
        assert root is not None
        yield at, (root, b"")
        pending = [at]
        while pending:
            directory = pending.pop()
            for entry in catalog.listing(directory):
                path = directory + b"/" + entry.name
                if path in nested:
                    yield from self._walk(path, nested[path])
                    continue
                yield path, (entry, self._content(catalog, path, entry))
                if entry.is_directory:
                    pending.append(path)
        catalog.close()

    def _content(self, catalog: Catalog, path: bytes, entry: DirectoryEntry) -> bytes:
        names = [ObjectName(chunk.digest, Suffix.PARTIAL) for chunk in catalog.chunks(path)]
        if entry.digest is not None:
            names.append(ObjectName(entry.digest, Suffix.NONE))
        storage = self.at()
        return b"".join(
            decompress(storage.get(name.path, limit=1 << 30) or b"", entry.compression) for name in names
        )
