"""A storage in a bucket of an S3 store, laid out as by the stock server (format reference, 13.2).

Owns: keys, content types, cache lifetimes (sections 6.4 and 13.2), and the repository's lock. The manifest is
an object like any other, replaced by a single request, so readers see either the old revision or the new one.
Must not know: what a file contains.
"""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.storage.bucket import Bucket, BucketReader, read_small
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.storage.s3_lock import S3Lock
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

__all__ = ["S3Storage"]

_LOCK = ".cvmfs_publishing"
_OBJECT = ("application/octet-stream", "max-age=259200")
_DOT_FILE = ("application/x-cvmfs", "max-age=61")


class S3Storage:
    """One repository's objects, below ``<fqrn>/`` in the bucket that ``configuration`` names."""

    def __init__(self, configuration: Path, fqrn: str) -> None:
        """Raises StorageError: the configuration is invalid."""
        self._configuration = configuration.absolute()
        self._fqrn = fqrn
        self._bucket = Bucket(S3Settings.load(configuration))
        self._held: S3Lock | None = None

    @classmethod
    def create(cls, configuration: Path, fqrn: str) -> "S3Storage":
        """Open it, creating the bucket if it does not exist. Raises StorageError."""
        storage = cls(configuration, fqrn)
        storage._bucket.make()
        return storage

    @property
    def location(self) -> str:
        return f"{self._bucket.location}/{self._fqrn}"

    @property
    def definition(self) -> str:
        return f"S3,/var/tmp,{self._fqrn}@{self._configuration}"

    @property
    def parallel(self) -> int:
        return self._bucket.settings.parallel

    def has(self, name: str) -> bool:
        return self._bucket.etag(self._key(name)) is not None

    def size(self, name: str) -> int | None:
        found = self._bucket.stat(self._key(name))
        return None if found is None else found.size

    def get(self, name: str, *, limit: int) -> bytes | None:
        reader = self.open(name)
        if reader is None:
            return None
        with reader:
            data = read_small(reader, limit)
        if data is None:
            raise StorageError(f"{self.location}/{name} exceeds the limit of {limit} bytes")
        return data

    def open(self, name: str) -> BucketReader | None:
        return self._bucket.open(self._key(name))

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        self._put(name, io.BytesIO(data), len(data))

    def put_file(self, name: str, source: Path) -> None:
        try:
            with source.open("rb") as file:
                self._put(name, file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise StorageError(f"cannot read {source}: {error.strerror}") from error

    @contextmanager
    def spool(self) -> Iterator[LocalStorage]:
        with tempfile.TemporaryDirectory(prefix="spool-") as place:
            yield LocalStorage.create(Path(place))

    def adopt(self, spool: LocalStorage, name: str) -> None:
        self.put_file(name, spool.directory / name)

    def _put(self, name: str, source: BinaryIO, size: int) -> None:
        content_type, caching = _OBJECT if name.startswith("data/") else _DOT_FILE
        self._bucket.put(self._key(name), source, size, content_type, {"Cache-Control": caching})

    def objects(self) -> Iterator[tuple[str, int]]:
        for each in self._bucket.objects(self._key("data/")):
            yield each.key.removeprefix(self._key("")), each.size

    def flush(self) -> None:
        # What S3 has acknowledged is safe; what remains is to make sure that we may still publish.
        if self._held is not None:
            self._held.check()

    def delete(self, names: Iterable[str]) -> None:
        if self._held is not None:
            self._held.check()  # whoever took over our lock may rely on what we stored
        self._bucket.delete(self._key(name) for name in names)

    @contextmanager
    def lock(self, *, wait: float) -> Iterator[None]:
        lock = S3Lock(self._bucket, self._key(_LOCK))
        lock.acquire(wait=wait)
        self._held = lock
        try:
            yield
        finally:
            self._held = None
            lock.release()

    def _key(self, name: str) -> str:
        return f"{self._fqrn}/{name}"
