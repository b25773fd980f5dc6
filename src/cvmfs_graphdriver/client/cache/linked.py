"""Other names of cached objects: hard links that somebody made below the cache directory.

Owns: where such links are, that they go with their object, whichever process evicts it, since they would keep
its bytes on the disk, and when a link is so new that its object stays for a moment: whoever it was made for
may not have opened it yet. Must not know: what links are for.

The path of a link is ``links/BOOT/PLACE/OWNER/XX/NAME``, where the object's is ``XX/`` and what precedes the
first dot in ``NAME``. The access time says when a link was last asked for, because unlinking one of an
object's names changes the change time.
"""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

__all__ = ["LINKS", "is_current", "is_fresh", "remove_links"]

LINKS = "links"
"""The directory of links in a cache."""
_FRESH = 2.0
"""Seconds for which a new link and its object stay in any case."""


def is_fresh(found: os.stat_result) -> bool:
    """Whether this file has a link that was made or asked for a moment ago."""
    return found.st_nlink > 1 and abs(time.time() - found.st_atime) < _FRESH


def is_current(cache: str, shard: str, name: str, inode: int) -> bool:
    """Whether ``name``, a link to this inode, refers to the file that is in the cache now."""
    for ending in ("", ".plain"):
        with suppress(FileNotFoundError):
            if os.stat(f"{cache}/{shard}/{name.partition('.')[0]}{ending}").st_ino == inode:
                return True
    return False


def remove_links(cache: Path, names: Collection[str], *, fresh: bool = False) -> None:
    """Remove links to objects with these names that are no longer in the cache; ``fresh`` ones, too?

    An object may have come back since, and overlayfs may be about to look up its new links.
    """
    root = os.fspath(cache)
    shards: dict[str, set[str]] = {}
    for name in names:
        shards.setdefault(name[:2], set()).add(name[2:].partition(".")[0])
    for owner in (cache / LINKS).glob("*/*/*"):
        for shard, wanted in shards.items():
            with suppress(FileNotFoundError):
                for link in os.listdir(owner / shard):
                    if link.partition(".")[0] in wanted:
                        found = os.stat(owner / shard / link)
                        if (fresh or not is_fresh(found)) and not is_current(root, shard, link, found.st_ino):
                            os.unlink(owner / shard / link)
