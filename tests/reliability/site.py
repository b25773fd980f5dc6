"""A mounted repository behind real proxies and servers, and somebody who reads it all the time."""

import hashlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.daemons import Daemon
from tests.support.entries import Item, directory, file
from tests.support.mounts import end

__all__ = [
    "FQRN",
    "Figures",
    "Reader",
    "Site",
    "damage_objects",
    "fill",
    "make_repository",
    "publish",
]

FQRN = "reliable.example.org"
_SMALL, _BIG = 120, 12 << 20
_SEED = 20


def publish(repository: Repository, seed: int, *, remove: bool = False) -> dict[str, str]:
    """Publish a tree of many small files and one that is cut into chunks; gives their digests."""
    choose = random.Random(seed)
    contents = {f"d{n % 7}/f{n}": choose.randbytes(choose.randrange(200, 30_000)) for n in range(_SMALL)}
    contents["big"] = choose.randbytes(_BIG)
    items: list[Item] = [directory(""), *(directory(f"/d{n}") for n in range(7))]
    items += [file(f"/{name}", content) for name, content in contents.items()]
    with Transaction(repository) as transaction:
        if remove:
            transaction.remove(b"/tree")
        transaction.ingest(b"/tree", items)
        transaction.publish()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def make_repository(home: Path) -> tuple[Repository, dict[str, str]]:
    """A repository at ``home/www/cvmfs/FQRN``, as servers know it, and what is in it."""
    storage = LocalStorage.create(home / "www" / "cvmfs" / FQRN)
    repository = create_repository(FQRN, storage, home / "keys", RepositoryOptions(ttl=3600))
    return repository, publish(repository, _SEED)


@dataclass
class Figures:
    """What a reader saw: files that were right, errors by number, and the longest that anything took."""

    right: int = 0
    errors: dict[int, int] = field(default_factory=dict)
    slowest: float = 0.0

    @property
    def refused(self) -> int:
        return sum(self.errors.values())


class Reader:
    """Reads all files over and over in a thread of its own, nothing of them from a cache, and checks them."""

    def __init__(self, site: "Site") -> None:
        self._site = site
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._figures = Figures()
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run, name="reader")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a read hangs for ever"

    def take(self) -> Figures:
        """The figures since they were last taken."""
        with self._lock:
            taken, self._figures = self._figures, Figures()
        return taken

    def wait_for(self, right: int, seconds: float = 60) -> Figures:
        """Read on until so many files were right; the figures of that time."""
        deadline = time.monotonic() + seconds
        while self._figures.right < right:
            assert time.monotonic() < deadline, f"only {self._figures} in {seconds} s"
            time.sleep(0.02)
        return self.take()

    def wait_for_whole_pass(self, seconds: float = 60) -> float:
        """Wait until every file was right with no error between; the seconds until that began."""
        start = time.monotonic()
        while True:
            self.take()
            began = time.monotonic()
            figures = self.wait_for(2 * len(self._site.truth), seconds)
            if not figures.errors:
                return began - start
            assert time.monotonic() < start + seconds, f"errors go on: {figures}"

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._site.cold:
                self._site.forget()
            for name in self._site.truth:
                if self._stop.is_set():
                    return
                self._read(name)

    def _read(self, name: str) -> None:
        start = time.monotonic()
        number = 0
        try:
            digest = hashlib.sha256((self._site.tree / name).read_bytes()).hexdigest()
        except OSError as error:
            number = error.errno or -1
        with self._lock:
            self._figures.slowest = max(self._figures.slowest, time.monotonic() - start)
            if number:
                self._figures.errors[number] = self._figures.errors.get(number, 0) + 1
            elif digest in self._site.accepted(name):
                self._figures.right += 1
            else:
                self.wrong.append(name)


class Site:
    """What a test of a fault needs: the parts that can fail, and the mount."""

    def __init__(self, home: Path, truth: dict[str, str], keys: Path, servers: tuple[Daemon, ...]) -> None:
        self.home = home
        self.truth = truth
        self.newer: dict[str, str] = {}
        self.servers = servers
        self.mount = home / "mnt"
        self.tree = self.mount / "tree"
        self.cache = home / "cache" / "shared"
        self.cold = True
        self._keys = keys

    def accepted(self, name: str) -> set[str]:
        """The digests that a file may have now."""
        return {self.truth[name], self.newer.get(name, "")}

    def forget(self) -> None:
        """Delete all that is cached of the files, by us and by the kernel, and let none be kept open."""
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        for path in self.cache.glob("[0-9a-f][0-9a-f]/*"):
            path.unlink(missing_ok=True)

    @contextmanager
    def mounted(self, **parameters: str) -> Iterator[Reader]:
        """Mount it with the configuration of an impatient administrator, and read."""
        etc = self.home / "etc"
        etc.mkdir()
        values = {
            "CVMFS_SERVER_URL": ";".join(f"{server.url}/cvmfs/@fqrn@" for server in self.servers),
            "CVMFS_KEYS_DIR": str(self._keys),
            "CVMFS_CACHE_BASE": str(self.cache.parent),
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_NFILES": "16",  # fewer than there are, so that none is found open from the last time
            "CVMFS_TIMEOUT": "1",
            "CVMFS_TIMEOUT_DIRECT": "1",
            "CVMFS_MAX_RETRIES": "1",
            "CVMFS_BACKOFF_INIT": "0.1",
            "CVMFS_BACKOFF_MAX": "0.2",
            "CVMFS_PROXY_RESET_AFTER": "1",
            "CVMFS_HOST_RESET_AFTER": "1",
            **parameters,
        }
        (etc / "default.local").write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
        self.mount.mkdir()
        spawn(MountRequest(FQRN, self.mount, etc))
        try:
            with Reader(self) as reader:
                reader.wait_for(len(self.truth))
                yield reader
        finally:
            end(self.mount)


def damage_objects(storage: Path, change: Callable[[bytes], bytes | None]) -> Callable[[], None]:
    """Change all objects of a server but catalogs and such; gives what repairs them."""
    kept = storage.with_name("kept")
    shutil.copytree(storage / "data", kept)
    for path in (storage / "data").glob("??/*"):
        if not path.name[-1].isupper() or path.name.endswith("P"):
            data = change(path.read_bytes())
            path.unlink()
            if data is not None:
                path.write_bytes(data)

    def repair() -> None:
        for path in kept.glob("??/*"):
            target = storage / "data" / path.relative_to(kept)
            temporary = target.with_name("repaired")
            shutil.copyfile(path, temporary)
            temporary.rename(target)
        shutil.rmtree(kept)

    return repair


def fill(place: Path) -> Path:
    """Fill a disk to its last block; gives the file that does."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 512):
            with suppress(OSError):  # no space left
                while True:
                    out.write(bytes(size))
        os.fsync(out.fileno())
    return ballast
