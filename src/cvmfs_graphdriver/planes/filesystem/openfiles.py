"""Open files by inode, kept open for further reads up to a limit.

Owns: which files stay open. The kernel opens files without notice, so a read identifies its file by the inode
alone. Must not know: how a file is opened, what is read. A file that is dropped during a read closes its
descriptors when the read is done.
"""

import threading
from collections.abc import Callable, Collection

from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.client.objects.openfile import OpenFile

__all__ = ["OpenFiles"]


class OpenFiles:
    """The most recently used files; safe for any number of threads."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._files: LeastRecentlyUsed[int, OpenFile] = LeastRecentlyUsed(limit)
        self._used: set[int] = set()

    def get(self, inode: int, open_file: Callable[[], OpenFile]) -> OpenFile:
        """The open file of an inode; ``open_file`` opens it if necessary."""
        with self._lock:
            self._used.add(inode)
            file = self._files.get(inode)
            if file is not None:
                return file
        opened = open_file()
        with self._lock:
            file = self._files.get(inode)
            surplus = self._files.put(inode, opened) if file is None else [opened]
        for dropped in surplus:
            dropped.close()
        return opened if file is None else file

    def close_evicted(self) -> Collection[int]:
        """Close files that have been evicted and not read since the last call, to free their disk space.

        Returns the files that were read since then.
        """
        with self._lock:
            used, self._used = self._used, set()
            files = list(self._files)
        for inode, file in files:
            if inode not in used and file.is_evicted:
                with self._lock:
                    dropped = self._files.pop(inode) if self._files.peek(inode) is file else None
                if dropped is not None:
                    dropped.close()
        return used

    def drop(self, inodes: Collection[int]) -> None:
        """Close these files; the next read opens them again."""
        with self._lock:
            dropped = [file for inode in inodes if (file := self._files.pop(inode)) is not None]
        for file in dropped:
            file.close()

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            files = self._files.clear()
        for file in files:
            file.close()

    def __len__(self) -> int:
        return len(self._files)
