"""Publishing layers that nodes upload to a bucket (format reference, section 18.4).

Owns: what happens to an object named by 64 hexadecimal digits: if it is a tar, plain or compressed, with that
SHA-256, it is published as ``/layers/<digits>``; once it is published or refused, it is deleted. Every step
can be repeated: what is not published yet is still in the bucket. Must not know: who asks.

Uploads are untrusted: what one may cost is limited, and they are unpacked, compressed and stored beside the
repository, which is locked only to take over what was accepted. A refused upload leaves no object behind and
does not stop the others; a failing store or repository stops all until the next attempt.
"""

import hashlib
import logging
import re
import tempfile
import threading
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.layer.budget import LayerBudget
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.errors import BusyError, StorageError, UploadError
from cvmfs_graphdriver.publisher.ingest.open_catalogs import OpenCatalogs
from cvmfs_graphdriver.publisher.ingest.staged_tree import StagedTree
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.staging import Staging
from cvmfs_graphdriver.publisher.storage.bucket import Bucket, BucketObject
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference

__all__ = ["LayerUploads", "UploadLimits"]

_log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_BATCH: Final = 32
"""Layers in one transaction, which all wait for the slowest of them."""
_REMEMBERED: Final = 10_000
_NOTES: Final = 20
"""Notes on one upload in the log."""
_READ: Final = 1 << 20
_WAIT: Final = 60.0


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one upload may cost: bytes as uploaded and unpacked, entries, and seconds to unpack it."""

    size: int = 10 << 30
    unpacked: int = 40 << 30
    entries: int = 1_000_000
    seconds: float = 600.0


class LayerUploads:
    """The uploads in ``bucket`` for ``repository``, each within ``limits``."""

    def __init__(self, bucket: Bucket, repository: Repository, limits: UploadLimits) -> None:
        self._bucket = bucket
        self._repository = repository
        self._limits = limits
        self._lock = threading.Lock()
        self._refused: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def status(self, name: str) -> str:
        """The state of an upload: ``done``, ``publishing``, ``failed: REASON`` or ``unknown``.

        Raises StorageError, FormatError.
        """
        if not _NAME.fullmatch(name):
            return "unknown"
        if self._is_published(name):
            return "done"
        etag = self._bucket.etag(name)
        refused = self._refused.get(name)
        if refused is not None and etag in (None, refused[0]):
            return f"failed: {refused[1]}"
        return "unknown" if etag is None else "publishing"

    def publish(self) -> int:
        """Publish what is waiting; returns the number of new layers.

        Raises StorageError, BusyError: the rest is still waiting, and nothing is lost.
        """
        waiting = [
            each
            for each in self._bucket.objects("")
            if _NAME.fullmatch(each.key) and self._refused.get(each.key, ("", ""))[0] != each.etag
        ]
        return sum(self._publish(waiting[start : start + _BATCH]) for start in range(0, len(waiting), _BATCH))

    def _publish(self, waiting: list[BucketObject]) -> int:
        new = 0
        with Staging(self._repository) as staging:
            staged = {}
            for each in waiting:
                if self._is_published(each.key):
                    continue
                try:
                    staged[_path(each.key)] = self._stage(each, staging)
                except (StorageError, BusyError):
                    raise
                except CvmfsGraphdriverError as error:
                    self._refuse(each, str(error))
            if staged:
                staging.flush()
                new = self._mount(staged, staging)
        self._bucket.delete(each.key for each in waiting)
        return new

    def _mount(self, staged: dict[bytes, StagedTree], staging: Staging) -> int:
        """Publish trees at their paths, except those that others have published meanwhile."""
        with Transaction(self._repository, wait=_WAIT) as transaction:
            missing = [tree for path, tree in staged.items() if transaction.lookup(path) is None]
            if missing:
                transaction.adopt(staging)
                for tree in missing:
                    transaction.mount(tree)
                manifest = transaction.publish()
                _log.info("published %d layers in revision %d", len(missing), manifest.revision)
        return len(missing)

    def _stage(self, upload: BucketObject, staging: Staging) -> StagedTree:
        notes: list[str] = []
        with tempfile.TemporaryFile(prefix="upload-") as file:
            self._fetch(upload, file)
            file.seek(0)
            limits = self._limits
            budget = LayerBudget(size=limits.unpacked, entries=limits.entries, seconds=limits.seconds)
            layer = LayerStream(f"the upload {upload.key}", file, budget=budget)
            tree = staging.stage(_path(upload.key), tree_entries(layer, notes))
        for note in notes[:_NOTES]:
            _log.info("%s: %s", upload.key, note)
        if len(notes) > _NOTES:
            _log.info("%s: and %d more", upload.key, len(notes) - _NOTES)
        return tree

    def _fetch(self, upload: BucketObject, file: IO[bytes]) -> None:
        """Copy an upload to a file. Raises UploadError: it does not match its name."""
        reader = self._bucket.open(upload.key)
        if reader is None:
            raise UploadError(f"the upload {upload.key} was deleted before it could be published")
        hasher, size = hashlib.sha256(), 0
        with reader:
            while data := reader.read(_READ):
                size += len(data)
                if size > self._limits.size:
                    raise UploadError(
                        f"the upload {upload.key} exceeds the limit of {self._limits.size} bytes"
                    )
                hasher.update(data)
                try:
                    file.write(data)
                except OSError as error:
                    raise StorageError(
                        f"cannot store the upload {upload.key} in {tempfile.gettempdir()}: {error.strerror}"
                    ) from error
        if hasher.hexdigest() != upload.key:
            raise UploadError(
                f"the upload {upload.key} does not match its name: its SHA-256 is {hasher.hexdigest()}"
            )

    def _refuse(self, upload: BucketObject, reason: str) -> None:
        _log.warning("refused %s: %s", upload.key, reason)
        self._refused[upload.key] = upload.etag, " ".join(reason.split())
        while len(self._refused) > _REMEMBERED:
            self._refused.popitem(last=False)

    def _is_published(self, name: str) -> bool:
        """Whether the newest revision has the layer."""
        repository = self._repository
        manifest = repository.manifest()

        with self._lock, ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="status-")))
            root = CatalogReference(b"", manifest.root, manifest.root_size)
            catalogs = OpenCatalogs(
                root, directory=scratch, fetch=repository.fetch_catalog, now=manifest.timestamp
            )
            return stack.enter_context(catalogs).lookup(_path(name)) is not None


def _path(name: str) -> bytes:
    return b"/layers/" + name.encode()
