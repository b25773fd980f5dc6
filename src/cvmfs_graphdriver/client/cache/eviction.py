"""Eviction: keeps a cache below its limit by removing what was used least recently.

Owns: when objects are evicted and which (CernVM-FS format reference, section 9.2), and that the ledger agrees
with the directory after a crash. Must not know: how objects get into the cache. Another policy would replace
the order in ``Eviction._unlink_oldest``.

Users only note what they use and store; a thread enters that in the ledger once a second, and evicts if
necessary. An object that a process needs to keep, such as an open catalog, is *held*: the process has a
shared flock(2) on its file, which ends with the process. Evicting a file that is merely open is harmless: its
content stays until it is closed.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from cvmfs_graphdriver.client.cache.ledger import Ledger, Record
from cvmfs_graphdriver.client.cache.linked import is_fresh, remove_links
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.kernel.waiting.deadline import end

__all__ = ["QUARANTINE", "Eviction", "objects_in"]

QUARANTINE = "quarantaine"
"""The directory of damaged objects; their names in the ledger begin with it."""

_PERIOD = 1.0
_BATCH = 500
_HELD_SHARE = 0.75
_MOMENT = 0.1
_REMEMBERED = 10_000

_log = logging.getLogger(__name__)


class Eviction:
    """Keeps one cache directory below ``limit`` bytes, in a thread of its own (the janitor)."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        """In bytes; may be changed at any time."""
        self.on_pressure: list[Callable[[], None]] = []
        """Called when held objects leave too little room for others."""
        self._path = directory / "cachedb"
        self._ledger = _open_ledger(self._path)
        self._lock = threading.Lock()
        self._work = threading.Lock()
        self._uses: dict[str, int] = {}
        self._stored: list[Record] = []
        self._gone: set[str] = set()
        self._last = 0
        self._used, self._pinned = self._ledger.used()
        self._arriving = 0
        self._evictions: list[float] = []
        self._marker, crashed = _mark(directory)
        crashed = crashed or self._ledger.is_new
        self._wake = threading.Event()
        self._closing = False
        self._crashed = crashed
        self._thread = threading.Thread(target=self._run, name="cache janitor", daemon=True)
        self._thread.start()

    # What users note

    def note_use(self, digest: str) -> None:
        """Note that an object was used."""
        with self._lock:
            self._uses[digest] = self._next()

    def note_stored(self, record: Record) -> None:
        """Note that an object is in the cache now, with a new sequence number."""
        with self._lock:
            self._stored.append(record._replace(sequence=self._next()))
            self._used += record.size
            hurry = self._used > self.limit or len(self._stored) >= _BATCH
        if hurry:
            self._wake.set()

    def note_gone(self, digest: str) -> None:
        """Note that an object is no longer in the cache."""
        with self._lock:
            self._gone.add(digest)
            self._stored = [record for record in self._stored if record.digest != digest]

    # What administrators see and change

    @property
    def used(self) -> int:
        """Bytes in the cache."""
        with self._lock:
            return self._used

    def usage(self) -> tuple[int, int]:
        """Bytes in the cache, and how many of them are pinned."""
        self.flush()
        return self._ledger.used()

    def records(self) -> list[Record]:
        """All objects, the least recently used first."""
        self.flush()
        return self._ledger.records()

    def verified(self, digest: str) -> tuple[int, int] | None:
        """Size and CRC-32 of an object as it was stored and verified; None if they are unknown."""
        self.flush()
        return self._ledger.verified(digest)

    def pin(self, digest: str, *, pinned: bool = True) -> bool:
        """Pin an object, so that it is never evicted, or unpin it; says whether it is there."""
        self.flush()
        found = self._ledger.pin(digest, pinned=pinned)
        self._recount()
        return found

    def evictions_since(self, moment: float) -> int:
        """How many times this process has evicted objects since a moment of ``time.monotonic()``."""
        with self._lock:
            return sum(when >= moment for when in self._evictions)

    def evict(self, digest: str) -> bool:
        """Evict one object, even a pinned one; says whether it is gone (it is not if a process holds it)."""
        self.flush()
        gone = self._unlink(digest)
        if gone:
            remove_links(self.directory, [digest])
            self._ledger.remove([digest])
            self._recount()
        return gone

    def shrink(self, target: int) -> int:
        """Evict until at most ``target`` bytes remain; returns how many remain. Raises CacheError."""
        with self._work:
            # Files are removed first: on a full disk there is no room for writing to the ledger.
            gone = set(self._unlink_oldest(target))
            remove_links(self.directory, gone)
            with self._lock:
                self._stored = [record for record in self._stored if record.digest not in gone]
                self._evictions.append(time.monotonic())
                del self._evictions[:-_REMEMBERED]
            self._flush()
            self._ledger.remove(gone)
            self._recount()
        left = self.used
        if left > target and left > _HELD_SHARE * self.limit:
            for callback in self.on_pressure:
                callback()
        return left

    def _unlink_oldest(self, target: int) -> Iterator[str]:
        """Remove files: damaged and volatile ones first, then the least recently used; yields digests."""
        with self._lock:
            noted, uses = list(self._stored), dict(self._uses)
        known = {record.digest: record for record in self._ledger.records()}
        known.update((record.digest, record) for record in noted)
        left = sum(record.size for record in known.values())

        def last_use(record: Record) -> tuple[bool, bool, int]:
            damaged = record.digest.startswith(QUARANTINE)
            return not damaged, not record.volatile, uses.get(record.digest, record.sequence)

        for record in sorted(known.values(), key=last_use):
            if left <= target:
                return
            if not record.pinned and self._unlink(record.digest):
                left -= record.size
                yield record.digest

    def admit(self, record: Record, size: int) -> None:
        """Refuse an object of ``size`` bytes that cannot fit. Raises CacheError."""
        room = self.limit - self._pinned
        if size > room:
            what = f"{record.path or 'object'} {record.digest}"
            raise CacheError(f"{what} has {size} bytes or more; the cache has room for {room}")

    def make_room(self, size: int) -> None:
        """Another ``size`` bytes are about to arrive: evict if they would exceed the limit."""
        with self._lock:
            self._arriving += size
            arriving, excess = self._arriving, self._used + self._arriving > self.limit
        if excess:
            self._try_to_shrink(max(0, min(self.limit // 2, self.limit - arriving)))

    def note_arrived(self, size: int) -> None:
        """Room of ``size`` bytes that was made is no longer needed: they are noted as stored, or gone."""
        with self._lock:
            self._arriving -= size

    def halve(self) -> None:
        """Evict half of the cache, because the disk is full before the limit is reached."""
        self._try_to_shrink(self.used // 2)

    def _try_to_shrink(self, target: int) -> None:
        """Shrink, but leave a damaged ledger to the janitor: the caller only wants to store something."""
        try:
            self.shrink(target)
        except CacheError as error:
            _log.warning("%s", error)
            self._wake.set()

    def flush(self) -> None:
        """Enter in the ledger what was noted. Raises CacheError."""
        with self._work:
            self._flush()

    def close(self) -> None:
        """End the janitor, enter everything in the ledger and close it."""
        self._closing = True
        self._wake.set()
        end(self._thread)
        try:
            self.flush()
        except CacheError as error:
            _log.warning("%s", error)
        self._ledger.close()
        with suppress(FileNotFoundError):
            os.unlink(self._marker.name)
        self._marker.close()

    # The janitor

    def _run(self) -> None:
        while not self._closing:
            try:
                self._tend()
            except CacheError as error:
                _log.warning("%s", error)
            self._wake.wait(_PERIOD)
            self._wake.clear()

    def _tend(self) -> None:
        try:
            if self._crashed:
                self._reconcile()
                self._crashed = False
            self.flush()
            if self.used > self.limit:
                self.shrink(self.limit // 2)
        except CacheError as error:
            _log.warning("%s; creating a new one", error)
            self._rebuild()

    def _next(self) -> int:
        """A number that grows across all processes: the clock in nanoseconds."""
        self._last = max(self._last + 1, time.time_ns())
        return self._last

    def _flush(self) -> None:
        with self._lock:
            uses, self._uses = self._uses, {}
            stored, self._stored = self._stored, []
            gone, self._gone = self._gone, set()
        if gone:
            self._ledger.remove(gone)
        if stored:
            self._ledger.add(stored)
        if uses:
            self._ledger.touch(uses.items())
        if stored or gone:
            self._recount()

    def _recount(self) -> None:
        used, pinned = self._ledger.used()
        with self._lock:
            self._pinned = pinned
            self._used = used + sum(record.size for record in self._stored)

    def _unlink(self, digest: str) -> bool:
        """Remove an object's file unless a process holds it or just linked to it; says whether it is gone."""
        path = _path_of(self.directory, digest)
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_fresh(os.fstat(file.fileno())):
                    return False
                os.unlink(path)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            raise CacheError(f"cannot remove {path}: {error.strerror}") from error
        return True

    def _reconcile(self) -> None:
        """A process ended without closing: make the ledger agree with the directory."""
        with self._work:
            self._flush()
            known = {record.digest: record for record in self._ledger.records()}
            there = dict(objects_in(self.directory))
            self._ledger.remove(known.keys() - there.keys())
            # What has another size than it was stored with is found by whoever opens it.
            self._ledger.add(
                Record(digest, stat.st_size, stat.st_atime_ns)
                for digest, stat in there.items()
                if digest not in known or (known[digest].size != stat.st_size and known[digest].crc32 < 0)
            )
            self._recount()
        _clear_transactions(self.directory / "txn")

    def _rebuild(self) -> None:
        """The ledger is damaged: create a new one from the directory."""
        with self._work:
            self._ledger.close()
            _discard(self._path)
            self._ledger = _open_ledger(self._path)
        self._reconcile()


def _open_ledger(path: Path) -> Ledger:
    try:
        ledger = Ledger(path)
        try:
            ledger.used()  # reads the whole table, but without making a mount wait for every row in Python
        except CacheError:
            ledger.close()
            raise
    except CacheError as error:
        _log.warning("%s; creating a new one", error)
        _discard(path)
        return Ledger(path)
    return ledger


def _discard(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _mark(directory: Path) -> tuple[IO[bytes], bool]:
    """Mark the cache as used by this process; also returns whether another one ended without closing."""
    crashed = False
    for marker in directory.glob("janitor.*"):
        with suppress(OSError), marker.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marker.unlink()
            crashed = True
    mine = (directory / f"janitor.{os.getpid()}.{time.monotonic_ns()}").open("wb")
    fcntl.flock(mine, fcntl.LOCK_SH)
    return mine, crashed


def _clear_transactions(directory: Path) -> None:
    """Remove files that are no longer being written: writers lock theirs right after creating them."""
    abandoned = _unlocked(directory)
    if abandoned:
        time.sleep(_MOMENT)
        for path in abandoned & _unlocked(directory):
            path.unlink(missing_ok=True)


def _unlocked(directory: Path) -> set[Path]:
    found = set()
    for path in directory.glob("*"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.add(path)
    return found


def objects_in(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All objects in the directory, damaged ones too: name and stat."""
    for shard in (*(f"{number:02x}" for number in range(256)), f"{QUARANTINE}/"):
        with suppress(FileNotFoundError), os.scandir(directory / shard) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield shard + entry.name, entry.stat()


def _path_of(directory: Path, name: str) -> str:
    if name.startswith(QUARANTINE):
        return f"{directory}/{name}"
    return f"{directory}/{name[:2]}/{name[2:]}"
