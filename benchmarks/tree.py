"""A tree for measurements: real files of this machine, as a directory, as a tar and as a repository.

Owns: which files, and publishing them. Must not know: what is measured. The files are those of ``/usr`` in
alphabetical order, up to a number of entries, without the few big ones; so names, sizes and directories
resemble those of a container's root.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["FQRN", "Tree", "copy_tree", "fill_directory", "pack_tree", "publish_tree"]

FQRN = "benchmark.example.org"
_SOURCE = Path("/usr")
_BIG = 2_000_000


@dataclass(frozen=True, slots=True)
class Tree:
    """What was copied: number of entries, bytes in files."""

    path: Path
    entries: int
    size: int


def copy_tree(target: Path, *, entries: int = 50_000, biggest: int = _BIG) -> Tree:
    """Copy entries of this machine below ``target``; no file is bigger than ``biggest`` bytes."""
    count, total = 1, 0
    target.mkdir(parents=True)
    for directory, names, files in os.walk(_SOURCE):
        names.sort()
        place = target / Path(directory).relative_to(_SOURCE)
        place.mkdir(exist_ok=True)
        count += 1
        for name in sorted(files):
            source = os.path.join(directory, name)
            status = os.lstat(source)
            if stat.S_ISREG(status.st_mode) and status.st_size <= biggest:
                total += status.st_size
            elif not stat.S_ISLNK(status.st_mode):
                continue
            shutil.copy2(source, place / name, follow_symlinks=False)
            count += 1
        if count >= entries:
            break
    return Tree(target, count, total)


def pack_tree(target: Path, *, entries: int = 50_000, size: int = 1_400_000_000) -> Tree:
    """Pack entries of this machine into a tar, then big files until it has the given size."""
    names: list[bytes] = []
    big: list[tuple[bytes, int]] = []
    total = 0
    for directory, below, files in os.walk(os.fsencode(_SOURCE)):
        below.sort()
        names.append(directory)
        for name in sorted(files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_size > _BIG:
                big.append((path, status.st_size))
            else:
                names.append(path)
                total += status.st_size
        if len(names) >= entries:
            break
    for path, more in big:
        if total + more <= size:
            names.append(path)
            total += more
    subprocess.run(
        ["tar", "--create", "--no-recursion", "--format=posix", "--null", "--files-from=-", "--file", target],
        input=b"\0".join(names) + b"\0",
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return Tree(target, len(names), total)


def fill_directory(target: Path, files: int) -> None:
    """Make a directory of so many small files, no two alike."""
    random = Random(1)
    target.mkdir()
    for number in range(files):
        (target / f"file{number:06}").write_bytes(random.randbytes(random.randint(100, 4000)))


def publish_tree(
    tree: Path,
    storage: Path,
    keys: Path,
    *,
    links: int = 0,
    beside: Mapping[bytes, Path] = MappingProxyType({}),
) -> None:
    """Make a repository in ``storage`` whose directory ``/tree`` is the tree; ``beside`` has others.

    ``/links`` has symbolic links, a thousand per directory, in one catalog.
    """
    one_catalog_each = RepositoryOptions(catalog_weights=None)
    repository = create_repository(FQRN, LocalStorage.create(storage), keys, one_catalog_each)
    with Transaction(repository) as transaction:
        for path, local in {b"/tree": tree, **beside}.items():
            transaction.ingest(path, _entries(os.fsencode(local)))
        if links:
            transaction.ingest(b"/links", _links_only(links))
        transaction.publish()


def _links_only(count: int) -> Iterator[tuple[TreeEntry, None]]:
    yield TreeEntry(b"", stat.S_IFDIR | 0o755, 0, 0, 1, 0), None
    for number in range(count):
        directory = b"/%d" % (number // 1000)
        if number % 1000 == 0:
            yield TreeEntry(directory, stat.S_IFDIR | 0o755, 0, 0, 1, 0), None
        path = b"%b/link%d" % (directory, number)
        yield TreeEntry(path, stat.S_IFLNK | 0o777, 0, 0, 1, 0, symlink=b"target"), None


def _entries(root: bytes) -> Iterator[tuple[TreeEntry, "_Content | None"]]:
    for directory, names, files in os.walk(root):
        names.sort()
        for path in (
            directory,
            *(directory + b"/" + name for name in sorted([*files, *_links(directory, names)])),
        ):
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode) and path != directory:
                continue
            link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
            entry = TreeEntry(
                path.removeprefix(root),
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns // 1_000_000_000,
                status.st_mtime_ns % 1_000_000_000,
                symlink=link,
            )
            yield entry, _Content(path) if stat.S_ISREG(status.st_mode) else None


def _links(directory: bytes, names: list[bytes]) -> list[bytes]:
    """Symbolic links to directories, which os.walk counts among directories."""
    return [name for name in names if os.path.islink(directory + b"/" + name)]


class _Content:
    """A file that is opened when it is read."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._descriptor = -1

    def read(self, size: int, /) -> bytes:
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        data = os.read(self._descriptor, size)
        if not data:
            os.close(self._descriptor)
            self._descriptor = -1
        return data
