"""The database of snapshots: names, kinds, parents, labels, and where lazy ones come from.

Owns: the SQLite file, its schema, and the rules by which containerd's own snapshotters change such records
(containerd, ``core/snapshots/storage``). A change is durable when its transaction ends (WAL,
synchronous=FULL). Must not know: directories, mounts.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cvmfs_graphdriver.planes.plane import LayerPath
from cvmfs_graphdriver.snapshotter.errors import (
    NoSuchSnapshotError,
    SnapshotExistsError,
    SnapshotRequestError,
    SnapshotStateError,
    SnapshotterError,
)
from cvmfs_graphdriver.snapshotter.snapshot import CHAIN_LABEL, LazySource, Snapshot, SnapshotKind

__all__ = ["Metadata"]

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- also the name of its directory; never used again
    key TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots (id),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    repository TEXT, path BLOB, found_by TEXT,
    why_not TEXT NOT NULL DEFAULT '',
    size INTEGER, inodes INTEGER
) STRICT;
CREATE INDEX children ON snapshots (parent);
"""
_SELECT: Final = """
SELECT s.id, s.key, ifnull(p.key, ''), s.kind, s.created, s.updated, s.labels,
    s.repository, s.path, s.found_by, s.why_not, s.size, s.inodes
FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent
"""
_ANCESTRY: Final = f"""
WITH RECURSIVE chain (number, id) AS (
    SELECT 0, id FROM snapshots WHERE key = ?
    UNION ALL SELECT number + 1, parent FROM chain JOIN snapshots USING (id) WHERE parent IS NOT NULL
)
{_SELECT} JOIN chain ON chain.id = s.id ORDER BY chain.number
"""
_LABEL_LIMIT: Final = 4096
"""Bytes of a label's key and value together, as in containerd."""
_KEY_LIMIT: Final = 4096


class Metadata:
    """The database at ``path``, created if it does not exist; safe for any number of threads."""

    def __init__(self, path: Path) -> None:
        """Raises SnapshotterError: the file cannot be used."""
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            ((version,),) = self._connection.execute("PRAGMA user_version")
            if version == 0:
                self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise SnapshotterError(
                    f"{path} was written by a newer version of cvmfs-graphdriver; update it"
                )
        except sqlite3.Error as error:
            raise SnapshotterError(f"cannot use the database {path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes in the block durable at its end, or none of them."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    # Reading

    def get(self, key: str) -> Snapshot:
        """Raises NoSuchSnapshotError."""
        found = self._select(f"{_SELECT} WHERE s.key = ?", key)
        if not found:
            raise NoSuchSnapshotError(f"snapshot {key!r} does not exist")
        return found[0]

    def ancestry(self, key: str) -> list[Snapshot]:
        """The snapshot and all below it, from the top to the base. Raises NoSuchSnapshotError."""
        found = self._select(_ANCESTRY, key)
        if not found:
            raise NoSuchSnapshotError(f"snapshot {key!r} does not exist")
        return found

    def all(self) -> list[Snapshot]:
        """All snapshots, parents before their children."""
        return self._select(f"{_SELECT} ORDER BY s.id")

    def in_use(self) -> set[int]:
        """The ids of active snapshots and views, and of everything below them."""
        query = """
            WITH RECURSIVE used (id) AS (
                SELECT id FROM snapshots WHERE kind != ?
                UNION SELECT parent FROM used JOIN snapshots USING (id) WHERE parent IS NOT NULL
            )
            SELECT id FROM used
        """
        with self._lock:
            return {number for (number,) in self._connection.execute(query, (SnapshotKind.COMMITTED,))}

    def lazy_child(self, parent: str, chain: str) -> Snapshot | None:
        """The lazy snapshot of a chain above ``parent``, if there is one."""
        above = self._select(
            f"{_SELECT} WHERE s.parent IS (SELECT id FROM snapshots WHERE key = ?) AND s.repository NOTNULL",
            parent,
        )
        return next((each for each in above if each.labels.get(CHAIN_LABEL) == chain), None)

    # Changing

    def create(
        self,
        kind: SnapshotKind,
        key: str,
        parent: str,
        labels: Mapping[str, str],
        *,
        source: LazySource | None = None,
        why_not: str = "",
    ) -> Snapshot:
        """A new snapshot above ``parent``. Raises SnapshotExistsError, what ``check_new`` raises."""
        kept = _labels(labels)
        with self.transaction():
            self.check_new(key, parent)
            below = self.get(parent).id if parent else None
            now = time.time_ns()
            place = (source.layer.fqrn, source.layer.path, source.key) if source else (None, None, None)
            usage = (0, 0) if source else (None, None)
            self._connection.execute(
                "INSERT INTO snapshots (key, parent, kind, created, updated, labels, repository, path, "
                "found_by, why_not, size, inodes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, below, kind, now, now, json.dumps(kept), *place, why_not, *usage),
            )
            return self.get(key)

    def check_new(self, key: str, parent: str) -> None:
        """Raises SnapshotExistsError, NoSuchSnapshotError, SnapshotRequestError: no child is possible."""
        if not key or len(key.encode()) > _KEY_LIMIT:
            raise SnapshotRequestError(f"a snapshot's key must have 1 to {_KEY_LIMIT} bytes")
        if parent and self.get(parent).kind is not SnapshotKind.COMMITTED:
            raise SnapshotRequestError(f"the parent {parent!r} is not a committed snapshot")
        if self._select(f"{_SELECT} WHERE s.key = ?", key):
            raise SnapshotExistsError(f"snapshot {key!r} already exists")

    def commit(self, key: str, name: str, labels: Mapping[str, str]) -> None:
        """Turn an active snapshot into the committed one ``name``, with these labels.

        Raises NoSuchSnapshotError, SnapshotExistsError, SnapshotStateError.
        """
        kept = _labels(labels)
        with self.transaction():
            found = self.get(key)
            if found.kind is not SnapshotKind.ACTIVE:
                raise SnapshotStateError(f"snapshot {key!r} is not active")
            if name != key:
                self.check_new(name, "")
            now = time.time_ns()
            self._connection.execute(
                "UPDATE snapshots SET key = ?, kind = ?, created = ?, updated = ?, labels = ? WHERE id = ?",
                (name, SnapshotKind.COMMITTED, now, now, json.dumps(kept), found.id),
            )

    def update(self, key: str, labels: Mapping[str, str], fields: Sequence[str]) -> Snapshot:
        """Change labels: those that ``fields`` name (``labels.<name>``), or all.

        Raises NoSuchSnapshotError, SnapshotRequestError.
        """
        with self.transaction():
            changed = dict(self.get(key).labels)
            for field in fields or ["labels"]:
                if field == "labels":
                    changed = dict(labels)
                elif field.startswith("labels."):
                    name = field.removeprefix("labels.")
                    changed[name] = labels.get(name, "")
                else:
                    raise SnapshotRequestError(f"cannot update the field {field!r} of snapshot {key!r}")
            self._connection.execute(
                "UPDATE snapshots SET labels = ?, updated = ? WHERE key = ?",
                (json.dumps(_labels(changed)), time.time_ns(), key),
            )
            return self.get(key)

    def remove(self, key: str) -> None:
        """Raises NoSuchSnapshotError, SnapshotStateError: there are snapshots above it."""
        with self.transaction():
            found = self.get(key)
            try:
                self._connection.execute("DELETE FROM snapshots WHERE id = ?", (found.id,))
            except sqlite3.IntegrityError as error:
                raise SnapshotStateError(f"cannot remove snapshot {key!r}: it has children") from error

    def set_usage(self, identity: int, size: int, inodes: int) -> None:
        """Keep how much a committed snapshot takes."""
        with self._lock:
            self._connection.execute(
                "UPDATE snapshots SET size = ?, inodes = ? WHERE id = ? AND kind = ?",
                (size, inodes, identity, SnapshotKind.COMMITTED),
            )

    def _select(self, query: str, *values: object) -> list[Snapshot]:
        with self._lock:
            return [_snapshot(row) for row in self._connection.execute(query, values)]


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    number, key, parent, kind, created, updated, labels, repository, path, found_by, why_not, size, inodes = (
        row
    )
    source = LazySource(LayerPath(repository, path), found_by) if repository is not None else None
    usage = (size, inodes) if size is not None else None
    return Snapshot(
        number, key, parent, SnapshotKind(kind), created, updated, json.loads(labels), source, why_not, usage
    )


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that are kept: an empty value removes one. Raises SnapshotRequestError: one is too long."""
    for name, value in labels.items():
        length = len(name.encode()) + len(value.encode())
        if length > _LABEL_LIMIT:
            raise SnapshotRequestError(
                f"label {name[:80]!r}: key and value have {length} bytes, more than {_LABEL_LIMIT}"
            )
    return {name: value for name, value in labels.items() if value}
