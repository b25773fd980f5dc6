"""Hard links to cached objects, where overlayfs finds the data of files.

Owns: two directories of links beside the objects; which links are removed, and when. Must not know: who
fetches objects, FUSE, or anything about overlayfs except the order in which it searches.

Overlayfs searches the first directory. If a name is not there, it asks the fetch trigger, which creates the
link in both directories, and then finds it in the second. (It cannot be told to search one directory twice.)
It keeps what it has found: removing a link does not affect files that are open or have been opened.

Whoever evicts an object removes its links (``client/cache/linked.py``), but not for a moment after one was
made: overlayfs may be about to look it up. Those in the first directory are removed after a while in any
case: the kernel opens files without notice, so the next use by another container must pass through the
trigger for the cache to know about it.

After a crash of the machine a file may be truncated. The trigger checks an object's size when it creates a
link, so links are valid for one boot only, whose ID is in their path.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.client.cache.linked import LINKS, is_current, is_fresh
from cvmfs_graphdriver.planes.erofs.objectnames import StoredObject

__all__ = ["Links", "link_directories"]

_log = logging.getLogger(__name__)

_KNOWN = 600.0
"""Seconds after which the next use of an object must be noticed again."""


def link_directories(cache: Path) -> tuple[Path, Path]:
    """The two directories of a cache; each repository has a subdirectory in both."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return cache / LINKS / boot / "first", cache / LINKS / boot / "second"


class Links:
    """The links of one repository's server; several servers may share the directories."""

    def __init__(self, cache: Path, fqrn: str) -> None:
        self._cache = os.fspath(cache)
        self._all = link_directories(cache)
        self._first, self._second = (os.fspath(place / fqrn) for place in self._all)
        for place in (self._first, self._second):
            os.makedirs(place, 0o700, exist_ok=True)
        for name in os.listdir(cache / LINKS):
            if name != self._all[0].parent.name:
                shutil.rmtree(cache / LINKS / name, ignore_errors=True)

    def add(self, wanted: StoredObject, path: str) -> None:
        """Link to an object's file. Raises FileNotFoundError: it has been evicted; OSError."""
        # First of all it becomes fresh, so that nobody removes the links while they are made.
        os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))
        for place in (self._second, self._first):
            _link(path, f"{place}/{os.fsdecode(wanted.path)}")

    def sweep(self) -> None:
        """Remove links that are not needed; call it every few minutes."""
        for link, shard, name in self._links():
            with suppress(FileNotFoundError):
                found = os.stat(link)
                unknown = link.startswith(self._first + "/") and abs(time.time() - found.st_atime) > _KNOWN
                if unknown or not (is_fresh(found) or is_current(self._cache, shard, name, found.st_ino)):
                    os.unlink(link)

    def _links(self) -> Iterator[tuple[str, str, str]]:
        for place in (self._first, self._second):
            for shard in _names(place):
                for name in _names(f"{place}/{shard}"):
                    yield f"{place}/{shard}/{name}", shard, name


def _link(path: str, link: str) -> None:
    """Create a link, even in place of one to a file that has been evicted since."""
    for _ in range(2):
        try:
            os.link(path, link)
        except FileExistsError:
            with suppress(FileNotFoundError):
                if os.path.samefile(path, link):
                    return
            temporary = f"{link}.{os.getpid()}.{time.monotonic_ns()}"
            os.link(path, temporary)
            os.rename(temporary, link)
            return
        except FileNotFoundError:
            if os.path.isdir(os.path.dirname(link)):
                raise
            os.makedirs(os.path.dirname(link), 0o700, exist_ok=True)
        else:
            return


def _names(directory: str | Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
