"""Garbage collection: deleting what no retained revision needs (format reference, section 15).

Owns: which revisions are retained, and the order that makes a collection safe to kill: first everything
retained is read, and nothing is deleted if any of it is missing; then reflog and manifest forget the other
revisions; only then are objects deleted. Must not know: what else a catalog contains.

Retained are the newest revision, every tag, and every revision that was the newest at some time since
``since``, because a client may still have it mounted. Whatever none of them refers to is garbage, including
what a killed publisher left behind.

Catalogs never change, so an index records what each refers to, and a collection reads only the catalogs that
are new since the last one. The index may be deleted at any time.
"""

import itertools
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cvmfs_graphdriver.publisher.errors import MissingObjectError, PublisherError
from cvmfs_graphdriver.publisher.repository import REFLOG, Repository
from cvmfs_graphdriver.publisher.tags import list_tags
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.reflog import ReferenceKind, Reflog

__all__ = ["Collection", "collect_garbage"]

STATUS: Final = ".cvmfs_status.json"
_REFLOG_LIMIT: Final = 1 << 30
_STATUS_LIMIT: Final = 1 << 20
_NAME: Final = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{38})(?:-[a-z0-9]+)?([A-Z]?)")
_BATCH: Final = 1000
_KEY: Final = 21  # a digest and its suffix letter


@dataclass(frozen=True, slots=True)
class Collection:
    """What was, or would be, deleted; ``size`` is in bytes as stored."""

    retained_revisions: int
    retained_objects: int
    forgotten_revisions: int
    objects: int
    size: int


class _Contents(NamedTuple):
    """What one catalog refers to: objects as in ``_Marks``, and nested catalogs' digests as text."""

    keys: bytes
    nested: bytes


def collect_garbage(
    repository: Repository, index: Path, *, since: float, dry_run: bool = False, wait: float = 0.0
) -> Collection:
    """Delete garbage; ``since`` is a Unix time, ``index`` the file of the index.

    Raises PublisherError: the repository is not garbage-collectable; and whatever reading it raises. Nothing
    has been deleted then.
    """
    with ExitStack() as stack:
        stack.enter_context(repository.lock(wait=wait))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gc-")))
        manifest = repository.manifest()
        if not manifest.garbage_collectable:
            raise PublisherError(f"{repository.fqrn} is not garbage-collectable, as its manifest says")
        marks = stack.enter_context(closing(_Marks(scratch / "marks")))
        contents = stack.enter_context(closing(_Index(repository, index, scratch)))
        roots = [manifest.root, *(tag.root for tag in list_tags(repository))]
        for root in roots:
            _mark(root, contents, marks)
        for root in _recent_roots(repository, manifest, scratch, since):
            with suppress(MissingObjectError):  # a revision that never became visible; nobody has it mounted
                _mark(root, contents, marks)
                roots.append(root)
        for digest, suffix in _auxiliary(manifest):
            marks.add(digest.raw + suffix.encode())
        marks.flush()
        forgotten = _forget(repository, manifest, roots, scratch, dry_run=dry_run)
        objects = size = 0
        for batch in _batches(_garbage(repository, marks)):
            objects += len(batch)
            size += sum(bytes_of for _, bytes_of in batch)
            if not dry_run:
                repository.storage.delete(name for name, _ in batch)
        if not dry_run:
            contents.keep_only_seen()
            _write_status(repository)
        return Collection(len(set(roots)), len(marks), forgotten, objects, size)


def _recent_roots(repository: Repository, manifest: Manifest, scratch: Path, since: float) -> list[Digest]:
    """The root catalogs that were the newest at some time after ``since``."""
    path = _unpack_reflog(repository, scratch)
    with closing(Reflog.open(path, fqrn=repository.fqrn)) as reflog:
        roots = [one for one in reflog.references() if one.kind is ReferenceKind.CATALOG]
    if manifest.root not in {one.digest for one in roots}:
        raise PublisherError(
            f"{REFLOG} of {repository.fqrn} does not list the newest revision: it is damaged, or belongs "
            "to another repository"
        )
    return [one.digest for one, after in itertools.pairwise(roots) if after.timestamp > since]


def _unpack_reflog(repository: Repository, directory: Path) -> Path:
    data = repository.storage.get(REFLOG, limit=_REFLOG_LIMIT)
    if data is None:
        raise PublisherError(f"{repository.fqrn} has no {REFLOG}, so the list of its revisions is unknown")
    path = directory / "reflog"
    path.write_bytes(data)
    return path


def _auxiliary(manifest: Manifest) -> Iterator[tuple[Digest, Suffix]]:
    """The needed objects that are not catalogs: those in the manifest, which include all tags."""
    for digest, suffix in (
        (manifest.certificate, Suffix.CERTIFICATE),
        (manifest.history, Suffix.HISTORY),
        (manifest.metainfo, Suffix.METAINFO),
    ):
        if digest is not None:
            yield digest, suffix


def _mark(root: Digest, contents: "_Index", marks: "_Marks") -> None:
    """Mark a catalog, all catalogs below it, and all that they refer to."""
    pending = [root]
    while pending:
        digest = pending.pop()
        if marks.add(digest.raw + Suffix.CATALOG.encode()):
            found = contents.of(digest)
            marks.add_all(found.keys)
            pending += [Digest.parse(text) for text in found.nested.decode().split()]


def _forget(
    repository: Repository, manifest: Manifest, roots: list[Digest], scratch: Path, *, dry_run: bool
) -> int:
    """Remove all revisions but ``roots`` from reflog and manifest; returns how many those were."""
    needed = {*roots, *(digest for digest, _ in _auxiliary(manifest))}
    path = _unpack_reflog(repository, scratch)
    with closing(Reflog.open(path, fqrn=repository.fqrn)) as reflog:
        gone = [one for one in reflog.references() if one.digest not in needed]
        if gone and not dry_run:
            for one in gone:
                reflog.remove(one.digest)
            reflog.finish()
            data = path.read_bytes()
            # Two files cannot change at once: in between, and after a kill, the manifest names no reflog.
            repository.put_manifest(manifest._replace(reflog=None))
            repository.storage.flush()
            repository.put_manifest(manifest._replace(reflog=repository.put_reflog(data)))
            repository.storage.flush()
    return sum(one.kind is ReferenceKind.CATALOG for one in gone)


def _garbage(repository: Repository, marks: "_Marks") -> Iterator[tuple[str, int]]:
    """Objects that are not marked; files that are not objects are left alone."""
    for name, size in repository.storage.objects():
        match = _NAME.fullmatch(name)
        if match and bytes.fromhex(match[1] + match[2]) + match[3].encode().ljust(1) not in marks:
            yield name, size


def _batches(garbage: Iterator[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    batch = []
    for one in garbage:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_status(repository: Repository) -> None:
    """Record the time, in the format of ``date --utc`` (section 6.4)."""
    now = datetime.fromtimestamp(repository.clock(), UTC)
    try:
        status = json.loads(repository.storage.get(STATUS, limit=_STATUS_LIMIT) or b"{}")
    except ValueError:
        status = {}
    status = {**(status if isinstance(status, dict) else {}), "last_gc": f"{now:%a %b %e %H:%M:%S UTC %Y}"}
    repository.storage.put(STATUS, json.dumps(status, indent=2).encode() + b"\n")


class _Marks:
    """A set of objects, on disk because there may be many millions."""

    def __init__(self, path: Path) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None)
        self._sql.execute("PRAGMA journal_mode = OFF")
        self._sql.execute("PRAGMA synchronous = OFF")
        self._sql.execute("CREATE TABLE mark (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._sql.execute("BEGIN")

    def add(self, key: bytes) -> bool:
        """Add an object; returns whether it is new."""
        done = self._sql.execute("INSERT OR IGNORE INTO mark VALUES (?)", (key.ljust(_KEY),))
        return done.rowcount > 0

    def add_all(self, keys: bytes) -> None:
        """Add many, concatenated."""
        self._sql.executemany(
            "INSERT OR IGNORE INTO mark VALUES (?)",
            ((keys[at : at + _KEY],) for at in range(0, len(keys), _KEY)),
        )

    def flush(self) -> None:
        self._sql.execute("COMMIT")

    def __contains__(self, key: bytes) -> bool:
        return self._sql.execute("SELECT 1 FROM mark WHERE key = ?", (key,)).fetchone() is not None

    def __len__(self) -> int:
        (number,) = self._sql.execute("SELECT count(*) FROM mark").fetchone()
        return int(number)

    def close(self) -> None:
        self._sql.close()


class _Index:
    """What catalogs refer to: read from each once, then from the index file."""

    def __init__(self, repository: Repository, path: Path, scratch: Path) -> None:
        self._repository = repository
        self._scratch = scratch
        self._seen: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sql = sqlite3.connect(path, isolation_level=None)
            self._sql.execute("BEGIN IMMEDIATE")
            self._sql.execute(
                "CREATE TABLE IF NOT EXISTS contents (digest TEXT PRIMARY KEY, keys BLOB, nested BLOB)"
            )
        except (OSError, sqlite3.Error) as error:
            raise PublisherError(
                f"cannot use {path} as the garbage collector's index: {error}; delete it"
            ) from error

    def of(self, digest: Digest) -> _Contents:
        """What the catalog with this digest refers to. Raises MissingObjectError, DigestMismatchError."""
        self._seen.add(digest.text)
        row = self._sql.execute(
            "SELECT keys, nested FROM contents WHERE digest = ?", (digest.text,)
        ).fetchone()
        if row is not None and self._repository.storage.has(ObjectName(digest, Suffix.CATALOG).path):
            return _Contents(*row)
        found = self._read(digest)
        self._sql.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", (digest.text, *found))
        return found

    def keep_only_seen(self) -> None:
        """Drop the catalogs that this collection did not use."""
        rows = self._sql.execute("SELECT digest FROM contents").fetchall()
        gone = [row for row in rows if row[0] not in self._seen]
        self._sql.executemany("DELETE FROM contents WHERE digest = ?", gone)

    def close(self) -> None:
        self._sql.execute("COMMIT")
        self._sql.close()

    def _read(self, digest: Digest) -> _Contents:
        path = self._scratch / "catalog"
        self._repository.fetch_catalog(digest, path)
        with closing(Catalog.open(path, mountpoint=b"")) as catalog:
            # Opened as if mounted at the root, its references have wrong paths, which do not matter here.
            keys = b"".join({raw + suffix.encode().ljust(1) for raw, suffix in catalog.objects()})
            nested = " ".join({reference.digest.text for reference in catalog.nested()}).encode()
        return _Contents(keys, nested)
