"""Creating a repository: storage, keys, whitelist, and an empty revision 1, as ``cvmfs_server mkfs`` does.

Owns: the first revision (CernVM-FS format reference, sections 2, 6 and 13), which is an ordinary transaction
on top of an empty root catalog. Must not know: how transactions work.
"""

import re
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter
from cvmfs_graphdriver.publisher.ingest.tree import directory_entry
from cvmfs_graphdriver.publisher.keyring import Keyring
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.repository import MANIFEST, REFLOG, WHITELIST, Repository
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import Digest, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.reflog import Reference, ReferenceKind, Reflog

__all__ = ["check_fqrn", "create_repository"]

_FQRN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_MASTER_REPLICA = ".cvmfs_master_replica"


def check_fqrn(fqrn: str) -> None:
    """Raises PublisherError: ``fqrn`` is not a valid repository name."""
    if not _FQRN.fullmatch(fqrn) or len(fqrn) > 60:
        raise PublisherError(
            f"{fqrn!r} is not a valid repository name: it must look like a domain name, "
            "e.g. images.example.org, and have at most 60 characters"
        )


def create_repository(
    fqrn: str,
    storage: Storage,
    keys_directory: Path,
    options: RepositoryOptions | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> Repository:
    """Create ``fqrn`` in an empty storage, with new keys in ``keys_directory``.

    Raises PublisherError: the name is invalid, or the storage already holds a repository; KeyringError,
    StorageError. On failure, neither keys nor repository are left behind.
    """
    check_fqrn(fqrn)
    settings = options or RepositoryOptions()
    if storage.has(MANIFEST):
        raise PublisherError(f"{storage.location} already holds a repository")
    with ExitStack() as undo:
        with storage.lock(wait=0):
            keys = Keyring.create(fqrn, keys_directory)
            undo.callback(keys.delete, keys_directory)
            repository = Repository(storage, keys, settings, clock=clock)
            objects = ObjectWriter(storage, settings)
            undo.callback(objects.discard)
            undo.callback(storage.delete, (MANIFEST, WHITELIST, REFLOG, _MASTER_REPLICA))
            _bootstrap(repository, objects)
        with Transaction(repository) as transaction:
            transaction.publish()
        undo.pop_all()
    return repository


def _bootstrap(repository: Repository, objects: ObjectWriter) -> None:
    """Revision 0: an empty root directory, visible only until revision 1 is published."""
    storage, now = repository.storage, int(repository.clock())
    with tempfile.TemporaryDirectory(prefix="create-") as scratch:
        file = Path(scratch) / "root"
        writer = CatalogWriter.create(file, mountpoint=b"", now=now)
        writer.add(b"", directory_entry(b"", now=now))
        size = writer.finish()
        root = objects.put(file.read_bytes(), Suffix.CATALOG)
        certificate = objects.put(*repository.certificate_object())
        reflog_file = Path(scratch) / "reflog"
        reflog = Reflog.create(reflog_file, fqrn=repository.fqrn)
        reflog.add(Reference(root, ReferenceKind.CATALOG, now))
        reflog.finish()
        data = reflog_file.read_bytes()
    storage.put(REFLOG, data)
    repository.resign()
    storage.put(_MASTER_REPLICA, b"This file marks the repository as replicatable to stratum 1 servers\n")
    repository.put_manifest(
        Manifest(
            root=root,
            root_size=size,
            ttl=repository.options.ttl,
            revision=0,
            fqrn=repository.fqrn,
            certificate=certificate,
            reflog=Digest.of(data, repository.options.algorithm),
            timestamp=now,
            garbage_collectable=repository.options.garbage_collectable,
        )
    )
