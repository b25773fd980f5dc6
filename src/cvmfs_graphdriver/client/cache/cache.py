"""The cache: decompressed objects as files, each complete and verified before it gets its name.

Owns: the layout below the cache directory (CernVM-FS format reference, section 9.1) and how a file appears
there. Must not know: the network, catalogs, trust, which objects go (``eviction``).

A name says how the stored object was read: the digest covers the bytes on servers, and a repository that
lists another one's compressed object as uncompressed must not get its own reading served to everybody.
Content of zlib objects has the stock name, the digest; what was stored uncompressed has ``.plain`` behind it.
An alien cache is the exception: stock clients share it, and they look for every object by its digest alone.

Several processes may share a cache directory: names determine content and files appear by rename, so two
processes that store the same object do no harm.
"""

import errno
import fcntl
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from isal import isal_zlib

from cvmfs_graphdriver.client.cache.eviction import QUARANTINE, Eviction, objects_in
from cvmfs_graphdriver.client.cache.ledger import Record
from cvmfs_graphdriver.client.cache.linked import remove_links
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.kernel.waiting.filelock import lock
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Cache", "Incoming"]

_TRANSACTIONS = "txn"
_PLAIN = ".plain"
_PIECE = 1 << 20
_STEP = 1024 * 1024
"""Room is made for so many bytes at a time as they arrive, whatever size was declared."""
_FULL_FOR = 300.0
"""Seconds for which the disk counts as full after a write that failed."""
_SILENCE = 60.0
"""Seconds between two lines in the log that say so."""

_log = logging.getLogger(__name__)


class Incoming:
    """An object on its way into the cache; it has no name there yet.

    This is not ``kernel/whole_file.py``: the file is locked while it is written, can be restarted, and is
    read before it has its name.
    """

    def __init__(self, record: Record, path: str, mode: int, cache: "Cache") -> None:
        self.record = record
        """What was known about it before it arrived."""
        self._path = path
        self._named = False
        self._cache = cache
        self._room = _STEP
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        # A file without a lock counts as left behind by a process that died.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.size = 0
        """Bytes written so far."""
        self.crc32 = 0
        """Checksum of the bytes written so far."""

    def restart(self) -> None:
        """Discard what was written."""
        if self.size:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self.size = self.crc32 = 0

    def write(self, data: bytes) -> None:
        """Append. Raises CacheError: the disk is full or broken; it cannot fit into the cache."""
        view = memoryview(data)
        tried = False
        while self.size + len(data) > self._room:
            self._make_room(self.size + len(data))
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                if error.errno == errno.ENOSPC and not tried:
                    tried = True
                    self._cache.relieve_disk()
                    continue
                if error.errno == errno.ENOSPC:
                    self._cache.note_full()
                raise CacheError(f"cannot write to the cache ({self._path}): {error.strerror}") from error
        self.size += len(data)
        self.crc32 = isal_zlib.crc32(data, self.crc32)

    def reopen(self) -> int:
        """A descriptor for reading what was written; it belongs to the caller."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def rename(self, path: str, mode: int) -> None:
        """Give it its name; ``mode`` is for its directory if that does not exist yet. Raises OSError."""
        try:
            os.rename(self._path, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode, exist_ok=True)
            os.rename(self._path, path)
        self._named = True

    def close(self) -> None:
        """Close the descriptor; the file is removed if it has no name yet."""
        os.close(self._descriptor)
        if not self._named:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        if self._cache.eviction is not None:
            self._cache.eviction.note_arrived(self._room - _STEP)
        self._room = _STEP

    def _make_room(self, size: int) -> None:
        eviction = self._cache.eviction
        if eviction is not None:
            eviction.admit(self.record, size)
            eviction.make_room(_STEP)
        self._room += _STEP


class Cache:
    """A directory of objects named by digest and compression; safe for threads, and for several processes.

    It is kept below ``limit`` bytes, if given. An ``alien`` cache is shared with stock clients: names are
    digests alone, and the modes of files let a group share it. ``compression`` is that of the object on
    servers.
    """

    def __init__(self, directory: Path, limit: int | None = None, *, alien: bool = False) -> None:
        self.directory = directory
        self._root = os.fspath(directory)
        self._numbers = itertools.count()
        self.alien = alien
        self._file_mode, self._directory_mode = (0o660, 0o770) if alien else (0o600, 0o700)
        try:
            directory.mkdir(mode=self._directory_mode, parents=True, exist_ok=True)
            for name in (_TRANSACTIONS, QUARANTINE):
                (directory / name).mkdir(mode=self._directory_mode, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot use the cache directory {directory}: {error.strerror}") from error
        self.eviction = None if limit is None else Eviction(directory, limit)
        """What keeps the cache below its limit; None if it has none."""
        self.on_full: list[Callable[[], None]] = []
        """Called when an object cannot be stored because the disk is full."""
        self._full_at = self._told_at = -math.inf

    def name(self, digest: Digest, compression: Compression = Compression.ZLIB) -> str:
        """The object's name in this cache, which is also that in the ledger."""
        return digest.text if compression is Compression.ZLIB or self.alien else digest.text + _PLAIN

    @staticmethod
    def parse(name: str) -> tuple[Digest, Compression]:
        """The object with this name. Raises FormatError: it is the name of something else."""
        digest = Digest.parse(name.removesuffix(_PLAIN))
        return digest, Compression.NONE if name.endswith(_PLAIN) else Compression.ZLIB

    def path(self, digest: Digest, compression: Compression = Compression.ZLIB) -> str:
        """The path of the object, whether it is there or not."""
        name = self.name(digest, compression)
        return f"{self._root}/{name[:2]}/{name[2:]}"

    def open(
        self, digest: Digest, size: int | None = None, compression: Compression = Compression.ZLIB
    ) -> int | None:
        """A descriptor for reading the object, None if it is not there.

        ``size`` is its uncompressed size, if known. A file that has changed since it was stored is moved to
        the quarantine and counts as missing; one whose stored size is unknown counts as missing, and what is
        fetched, if it is right, replaces it. Raises CacheError; FormatError: the object is as it was stored,
        and the wanted size is wrong.
        """
        path = self.path(digest, compression)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"cannot open {path} in the cache: {error.strerror}") from error
        found = os.fstat(descriptor).st_size
        if size is not None and found != size:
            os.close(descriptor)
            self._judge_size(digest, compression, found, size)
            return None
        self.note_use(digest, compression)
        return descriptor

    def has(
        self, digest: Digest, size: int | None = None, compression: Compression = Compression.ZLIB
    ) -> bool:
        """Whether the object seems to be there, with that size; does not count as a use."""
        try:
            found = os.stat(self.path(digest, compression))
        except OSError:
            return False
        return size is None or found.st_size == size

    def hold(self, digest: Digest) -> int | None:
        """Keep the object from being evicted while the returned descriptor is open.

        None if it is not there. Raises CacheError.
        """
        path = self.path(digest)
        while True:
            descriptor = self.open(digest)
            if descriptor is None:
                return None
            try:
                lock(descriptor, fcntl.LOCK_SH, path)
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
            except FileNotFoundError:
                pass
            except OSError as error:
                os.close(descriptor)
                raise CacheError(f"cannot lock {path}: {error.strerror}") from error
            # It was evicted between opening and locking.
            os.close(descriptor)

    def note_use(self, digest: Digest, compression: Compression = Compression.ZLIB) -> None:
        """Note that the object was used, possibly without being opened, so that it is not evicted next."""
        if self.eviction is not None:
            self.eviction.note_use(self.name(digest, compression))

    def doubt(self, digest: Digest) -> None:
        """Move an object that cannot be read to the quarantine, unless it is as it was stored and verified.

        Raises CacheError.
        """
        name = self.name(digest)
        stored = None if self.eviction is None else self.eviction.verified(name)
        with suppress(OSError), open(self.path(digest), "rb") as file:
            size = checksum = 0
            while data := file.read(_PIECE):
                size += len(data)
                checksum = isal_zlib.crc32(data, checksum)
            if stored == (size, checksum):
                return
        self.quarantine(name)

    def quarantine(self, name: str) -> None:
        """Move a damaged object away, and keep it for inspection until room is needed. Raises CacheError."""
        place = f"{QUARANTINE}/{name}"
        try:
            size = os.stat(f"{self._root}/{name[:2]}/{name[2:]}").st_size
            os.rename(f"{self._root}/{name[:2]}/{name[2:]}", f"{self._root}/{place}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise CacheError(f"cannot move {name} to the quarantine: {error.strerror}") from error
        remove_links(self.directory, [name], fresh=True)
        if self.eviction is not None:
            self.eviction.note_gone(name)
            self.eviction.note_stored(Record(place, size, path="damaged object"))

    def begin(self, record: Record) -> Incoming:
        """Begin to write an object, which appears only when it is committed.

        ``record`` is what is known about it. The caller must close it in any case. Raises CacheError: the
        disk is full or broken; the object cannot fit into the cache.
        """
        if self.eviction is not None:
            self.eviction.admit(record, record.size)
        temporary = f"{self._root}/{_TRANSACTIONS}/{record.digest}.{os.getpid()}.{next(self._numbers)}"
        try:
            try:
                return Incoming(record, temporary, self._file_mode, self)
            except FileNotFoundError:
                # The directory was wiped while in use.
                os.makedirs(os.path.dirname(temporary), self._directory_mode, exist_ok=True)
                return Incoming(record, temporary, self._file_mode, self)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self.relieve_disk()
                return Incoming(record, temporary, self._file_mode, self)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.note_full()
            raise CacheError(f"cannot write to the cache ({temporary}): {error.strerror}") from error

    def commit(self, incoming: Incoming) -> None:
        """Make an object that is complete and verified appear. Raises CacheError."""
        digest = incoming.record.digest
        try:
            incoming.rename(f"{self._root}/{digest[:2]}/{digest[2:]}", self._directory_mode)
        except OSError as error:
            raise CacheError(f"cannot store {digest} in the cache: {error.strerror}") from error
        self.note_stored(incoming.record._replace(size=incoming.size, crc32=incoming.crc32))

    def note_stored(self, record: Record) -> None:
        """Note that an object is there now, possibly stored by another of our processes."""
        if self.eviction is not None:
            self.eviction.note_stored(record)

    def relieve_disk(self) -> None:
        """The disk is full before the limit is reached: evict half of the cache."""
        if self.eviction is not None:
            self.eviction.halve()

    def note_full(self) -> None:
        """The disk is still full after objects were evicted, if there were any: tell the administrator."""
        self._full_at = time.monotonic()
        for callback in self.on_full:
            callback()
        if self._full_at - self._told_at >= _SILENCE:
            self._told_at = self._full_at
            _log.error("the disk of the cache %s is full, and not with cached objects", self._root)

    @property
    def is_full(self) -> bool:
        """Whether an object could not be stored lately because the disk is full."""
        return time.monotonic() - self._full_at < _FULL_FOR

    def forget_writer(self, process: int) -> None:
        """Remove the incomplete files of one of our processes that has ended."""
        with suppress(OSError), os.scandir(self.directory / _TRANSACTIONS) as entries:
            for entry in entries:
                if entry.name.split(".")[-2:-1] == [str(process)]:
                    os.unlink(entry.path)

    def objects(self) -> Iterator[tuple[str, int]]:
        """All objects: name, and size in bytes."""
        for name, found in objects_in(self.directory):
            yield name, found.st_size

    def close(self) -> None:
        """Enter everything in the ledger and close it."""
        if self.eviction is not None:
            self.eviction.close()

    def _judge_size(self, digest: Digest, compression: Compression, found: int, wanted: int) -> None:
        name = self.name(digest, compression)
        stored = None if self.eviction is None else self.eviction.verified(name)
        if stored is None:
            return
        if stored[0] == found:
            raise FormatError(f"object {digest} has {found} bytes, not {wanted}")
        self.quarantine(name)
