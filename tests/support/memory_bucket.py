"""A bucket of uploads that lies in memory, for the publisher's service."""

import hashlib
import io
from collections.abc import Iterable, Iterator

from cvmfs_graphdriver.publisher.storage.bucket import BucketObject

__all__ = ["MemoryBucket"]


class MemoryBucket:
    """Uploads by their names."""

    def __init__(self, *uploads: bytes) -> None:
        self.content = {hashlib.sha256(data).hexdigest(): data for data in uploads}

    def objects(self, prefix: str) -> Iterator[BucketObject]:
        assert not prefix
        return (BucketObject(name, len(data), name) for name, data in self.content.items())

    def open(self, key: str) -> io.BytesIO:
        return io.BytesIO(self.content[key])

    def etag(self, key: str) -> str | None:
        return key if key in self.content else None

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self.content[key]
