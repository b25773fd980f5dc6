"""Hard links to cached objects, where overlayfs finds the data of files.

Owns: two directories of links beside the objects; which links are removed, and when. Must not know: who
fetches objects, FUSE, or anything about overlayfs except the order in which it searches.

Overlayfs searches the first directory. If a name is not there, it asks the fetch trigger, which creates the
link in both directories, and then finds it in the second. (It cannot be told to search one directory twice.)
It keeps what it has found: removing a link does not affect files that are open or have been opened.

Links are removed when their object has been evicted, since they would keep its bytes on disk. Those in the
first directory are removed after a while in any case: the kernel opens files without notice, so the next use
by another container must pass through the trigger for the cache to know about it. A new link stays for a
while, because overlayfs may be about to look it up; its access time records when it was made, because
unlinking the object changes the change time.

After a crash of the machine a file may be truncated. The trigger checks an object's size when it creates a
link, so links are valid for one boot only, whose ID is in their path.
"""

import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.planes.erofs.objectnames import StoredObject

__all__ = ["Links", "link_directories"]

_log = logging.getLogger(__name__)

_FRESH = 60.0
"""Seconds for which a new link stays in any case."""
_KNOWN = 600.0
"""Seconds after which the next use of an object must be noticed again."""


def link_directories(cache: Path) -> tuple[Path, Path]:
    """The two directories of a cache; each repository has a subdirectory in both."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return cache / "links" / boot / "first", cache / "links" / boot / "second"


class Links:
    """The links of one repository's server; several servers may share the directories."""

    def __init__(self, cache: Path, fqrn: str) -> None:
        self._cache = os.fspath(cache)
        self._all = link_directories(cache)
        self._first, self._second = (os.fspath(place / fqrn) for place in self._all)
        for place in (self._first, self._second):
            os.makedirs(place, 0o700, exist_ok=True)
        for name in os.listdir(cache / "links"):
            if name != self._all[0].parent.name:
                shutil.rmtree(cache / "links" / name, ignore_errors=True)

    def add(self, wanted: StoredObject, path: str) -> None:
        """Link to an object's file. Raises FileNotFoundError: it has been evicted; OSError."""
        for place in (self._second, self._first):
            link = f"{place}/{os.fsdecode(wanted.path)}"
            _link(path, link)
        now = time.time_ns()
        os.utime(link, ns=(now, os.stat(link).st_mtime_ns))

    def evicted(self, digests: Collection[str]) -> None:
        """Remove the links to evicted objects, to free disk space."""
        shards: dict[str, set[str]] = {}
        for digest in digests:
            shards.setdefault(digest[:2], set()).add(digest[2:].partition(".")[0])
        for place in self._all:
            for repository in _names(place):
                for shard, rests in shards.items():
                    directory = f"{place}/{repository}/{shard}"
                    for name in _names(directory):
                        if name.partition(".")[0] in rests:
                            _remove_unless(f"{directory}/{name}", _FRESH)

    def sweep(self) -> None:
        """Remove links that are not needed; call it every few minutes."""
        for link, shard, name in self._links():
            with suppress(FileNotFoundError):
                if not self._is_cached(link, shard, name):
                    _remove_unless(link, _FRESH)
                elif link.startswith(self._first + "/"):
                    _remove_unless(link, _KNOWN)

    def _links(self) -> Iterator[tuple[str, str, str]]:
        for place in (self._first, self._second):
            for shard in _names(place):
                for name in _names(f"{place}/{shard}"):
                    yield f"{place}/{shard}/{name}", shard, name

    def _is_cached(self, link: str, shard: str, name: str) -> bool:
        """Whether the link refers to the file that is in the cache now."""
        inode = os.stat(link).st_ino
        for ending in ("", ".plain"):
            with suppress(FileNotFoundError):
                if os.stat(f"{self._cache}/{shard}/{name.partition('.')[0]}{ending}").st_ino == inode:
                    return True
        return False


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


def _remove_unless(link: str, seconds: float) -> None:
    """Remove a link unless it was created or requested less than this many seconds ago."""
    with suppress(FileNotFoundError):
        if abs(time.time() - os.stat(link).st_atime) > seconds:
            os.unlink(link)


def _names(directory: str | Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
