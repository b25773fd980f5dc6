"""Two publishers: an honest one, and one whose every revision is a trap."""

import itertools
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import Compression, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from tests.endurance.content import content, name_of
from tests.hostile.test_databases import CATALOGS, new_catalog, run
from tests.support.entries import Item, directory, file
from tests.support.resigned import ResignedRepository

__all__ = ["HONEST", "LAYER", "Honest", "Hostile", "regularly"]

HONEST = "honest.example.org"
LAYER = b"/layers/aa"
_DIRECTORY = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY, linkcount=2)
_FILE = stat.S_IFREG | 0o644
_KEPT = 3


class Honest:
    """400 MB in one layer, and a directory ``moving`` that changes with each revision."""

    def __init__(self, home: Path) -> None:
        storage = LocalStorage.create(home / "www" / "cvmfs" / HONEST)
        self.repository = create_repository(HONEST, storage, home / "keys", RepositoryOptions(ttl=1))
        sizes = [*range(1000, 61_000, 200), *[1 << 20] * 50, *[24 << 20] * 14]
        items: list[Item] = [directory("")]
        items += [directory(f"/d{number}") for number in range(8)]
        for number, size in enumerate(sizes):
            name = name_of(f"stable{number}", size)
            items.append(file(f"/d{number % 8}/{name}", content(name)))
        with Transaction(self.repository) as transaction:
            transaction.ingest(LAYER, items)
            transaction.publish()
        self.number = 0

    def publish(self) -> None:
        self.number += 1
        names = [name_of(f"moving{self.number}x{each}", 9000 + 5000 * each) for each in range(40)]
        with Transaction(self.repository) as transaction:
            transaction.ingest(
                b"/moving/%d" % self.number,
                [directory(""), *(file(f"/{name}", content(name)) for name in names)],
            )
            if self.number > _KEPT:
                transaction.remove(b"/moving/%d" % (self.number - _KEPT))
            transaction.publish()


class Hostile:
    """A repository with right signatures and digests; ``victim`` is where an honest one's objects are."""

    def __init__(self, home: Path, victim: Path) -> None:
        self.signed = ResignedRepository("lite-sha1-zlib", home / "www")
        self.fqrn = self.signed.fqrn
        (home / "keys").mkdir()
        (home / "keys" / f"{self.fqrn}.pub").write_bytes(self.signed.master.public.pem)
        self.signed.published = self.signed.published._replace(ttl=1)
        self.signed.publish()
        self._scratch = home / "trap"
        self._victim = victim
        honest_root = str(self.signed.published.root)
        traps: list[Callable[[Path], None]] = [
            *CATALOGS.values(), self._lists_honest_objects, self._endless_file, _long_names, _garbage, _many,
            _cycle,
        ]  # fmt: skip
        self._revisions = itertools.cycle([*traps, None])
        self._honest_root = honest_root
        self.number = 0

    def publish(self) -> None:
        trap = next(self._revisions)
        self.number += 1
        root = self._honest_root
        if trap is not None:
            self._scratch.unlink(missing_ok=True)
            new_catalog(self._scratch, 20)
            trap(self._scratch)
            root = self._store(compress(self._scratch.read_bytes()), Suffix.CATALOG).text
        self.signed.publish(root, self.signed.published.revision + 1, seconds=1)

    def _store(self, stored: bytes, suffix: Suffix = Suffix.NONE) -> Digest:
        name = ObjectName(Digest.of(stored), suffix)
        place = self.signed.root / name.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(stored)
        return name.digest

    def _lists_honest_objects(self, path: Path) -> None:
        """With another compression, and with sizes that are not theirs."""
        path.unlink()
        found = [each for each in self._victim.glob("data/??/*") if each.name[-1].isdigit()][:40]
        with CatalogWriter.create(path, mountpoint=b"", now=5) as writer:
            writer.add(b"", _DIRECTORY)
            for number, each in enumerate(found):
                stored = each.read_bytes()
                digest = self._store(stored)
                lies = [
                    (len(stored), Compression.NONE),
                    (1, Compression.ZLIB),
                    (5 << 30, Compression.ZLIB),
                    (2**58, Compression.NONE),
                ]
                size, compression = lies[number % len(lies)]
                _add(writer, b"file%d" % number, size, digest, compression)
            writer.finish()

    def _endless_file(self, path: Path) -> None:
        """It inflates to nothing."""
        path.unlink()
        deflate = zlib.compressobj()
        start = deflate.compress(b"x") + deflate.flush(zlib.Z_FULL_FLUSH)
        digest = self._store(start + b"\0\0\0\xff\xff" * (4 << 20))
        with CatalogWriter.create(path, mountpoint=b"", now=5) as writer:
            writer.add(b"", _DIRECTORY)
            _add(writer, b"endless", 100_000, digest, Compression.ZLIB)
            writer.finish()


def _add(writer: CatalogWriter, name: bytes, size: int, digest: Digest, compression: Compression) -> None:
    entry = DirectoryEntry(name, _FILE, size, 5, flags=EntryFlag.FILE, digest=digest, compression=compression)
    writer.add(b"/" + name, entry)


def _long_names(path: Path) -> None:
    run(path, "UPDATE catalog SET name = printf('%.70000c', 'n') WHERE name = 'directory1'")


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 400)


def _many(path: Path) -> None:
    path.unlink()
    new_catalog(path, 30_000)


def _cycle(path: Path) -> None:
    """A directory that is its own parent."""
    run(
        path,
        "UPDATE catalog SET parent_1 = md5path_1, parent_2 = md5path_2 WHERE name = 'directory2'",
        "INSERT INTO nested_catalogs (path, sha1, size) VALUES ('/directory3', '" + "5" * 40 + "', 1)",
    )


@contextmanager
def regularly(seconds: float, do: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Do something again and again in a thread; what it raises is collected."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        while not stop.wait(seconds):
            try:
                do()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)
                time.sleep(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield failures
    finally:
        stop.set()
        thread.join()
