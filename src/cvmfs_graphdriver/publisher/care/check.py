"""Checking a repository from the signature to each byte, taking nothing on trust.

Owns: what must hold between manifest, catalogs and objects (CernVM-FS format reference, sections 1 to 6).
Must not know: how to repair. Every finding is one line that names the object and what is wrong with it; after
a finding the check continues wherever it can.
"""

import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.publisher.contents import is_replicable, read_object, verify_object
from cvmfs_graphdriver.publisher.errors import MissingObjectError
from cvmfs_graphdriver.publisher.repository import MANIFEST, REFLOG, WHITELIST
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.counters import Tally
from cvmfs_graphdriver.repository.catalog.entry import (
    LISTED_ELSEWHERE,
    CatalogReference,
    Chunk,
    DirectoryEntry,
    EntryFlag,
)
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.history import TRUNK, History
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.paths import shown
from cvmfs_graphdriver.repository.reflog import ReferenceKind, Reflog
from cvmfs_graphdriver.repository.trust.chain import TrustChain
from cvmfs_graphdriver.repository.trust.keys import PublicKey

__all__ = ["RepositoryCheck"]

_SMALL: Final = 1 << 20
_REFLOG_LIMIT: Final = 1 << 30
_THREADS: Final = 4
_MOST_WAITING: Final = 64
_KIND_FLAGS: Final = EntryFlag.DIRECTORY | EntryFlag.FILE | EntryFlag.SYMLINK | EntryFlag.SPECIAL


class RepositoryCheck:
    """One check of a repository. ``catalogs``, ``objects`` and ``bytes`` (as stored) count what was seen.

    ``warnings`` says what is not as it should be, and harms nobody.
    """

    def __init__(
        self,
        storage: Storage,
        fqrn: str,
        public_keys: Sequence[PublicKey],
        *,
        now: datetime,
        contents: bool = True,
    ) -> None:
        """Without ``contents``, files' objects are only checked for presence."""
        self._storage = storage
        self._fqrn = fqrn
        self._keys = public_keys
        self._now = now
        self._contents = contents
        self._seen_objects: set[bytes] = set()
        self._seen_catalogs: dict[tuple[bytes, bytes], Tally] = {}
        self._waiting: deque[Future[tuple[int, str]]] = deque()
        self.warnings: list[str] = []
        self.catalogs = 0
        self.objects = 0
        self.bytes = 0

    def run(self) -> Iterator[str]:
        """Yields a line for everything that is wrong."""
        with ExitStack() as stack:
            self._pool = stack.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="check"))
            stack.callback(self._pool.shutdown, cancel_futures=True)
            self._scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="check-")))
            yield from self._check_manifest()
            yield from self._drain(0)

    # What the manifest names

    def _check_manifest(self) -> Iterator[str]:
        data = self._storage.get(MANIFEST, limit=_SMALL)
        if data is None:
            yield f"there is no {MANIFEST} in {self._storage.location}"
            return
        chain = TrustChain(self._fqrn, self._keys)
        try:
            manifest = chain.manifest(data)
        except CvmfsGraphdriverError as error:
            yield str(error)
            return
        yield from self._check_trust(chain)
        root = CatalogReference(b"", manifest.root, manifest.root_size)
        yield from self._check_tree(root, f"revision {manifest.revision}")
        yield from self._check_reflog(manifest)
        yield from self._check_history(manifest)
        if manifest.metainfo:
            yield from self._check_form("metainfo", ObjectName(manifest.metainfo, Suffix.METAINFO))

    def _check_form(self, what: str, name: ObjectName) -> Iterator[str]:
        try:
            if is_replicable(self._storage, name):
                return
        except CvmfsGraphdriverError as error:
            yield f"the {what}: {error}"
        else:
            yield (
                f"the {what}: object {name} is not the zlib stream that stratum 1 servers make of it, so "
                "their copies are broken; the next publish and repo resign store it anew"
            )

    def _check_trust(self, chain: TrustChain) -> Iterator[str]:
        try:
            name = chain.certificate_name
            chain.certificate(self._get(name.path))
            yield from self._check_form("certificate", name)
            chain.whitelist(self._get(WHITELIST), self._now)
            if chain.signed_whitelist and (problem := chain.signed_whitelist.problem(self._now)):
                self.warnings.append(problem)
        except CvmfsGraphdriverError as error:
            yield str(error)

    def _get(self, name: str) -> bytes:
        data = self._storage.get(name, limit=_SMALL)
        if data is None:
            raise MissingObjectError(f"{name} is missing from {self._storage.location}")
        return data

    def _check_reflog(self, manifest: Manifest) -> Iterator[str]:
        data = self._storage.get(REFLOG, limit=_REFLOG_LIMIT)
        if data is None:
            if manifest.reflog:
                yield f"{REFLOG} is missing from {self._storage.location}"
            return
        path = self._scratch / "reflog"
        path.write_bytes(data)
        try:
            with closing(Reflog.open(path, fqrn=self._fqrn)) as reflog:
                references = reflog.references()
        except CvmfsGraphdriverError as error:
            yield str(error)
            return
        known = {reference.digest for reference in references}
        roots = [reference.digest for reference in references if reference.kind is ReferenceKind.CATALOG]
        # A publisher that dies before its manifest leaves the reflog ahead; the next one goes on from there.
        is_ahead = manifest.root in roots[:-1]
        is_same = manifest.reflog is None or Digest.of(data, manifest.reflog.algorithm) == manifest.reflog
        if not is_same and not is_ahead:
            self.warnings.append(
                f"{REFLOG} does not have the digest {manifest.reflog} that the manifest names; that is so "
                "between a garbage collection by cvmfs_server and the next publish"
            )
        for digest in (manifest.root, manifest.certificate, manifest.history, manifest.metainfo):
            if digest and digest not in known:
                yield f"{REFLOG} does not list {digest}, which the manifest names"

    def _check_history(self, manifest: Manifest) -> Iterator[str]:
        if not manifest.history:
            return
        path = self._scratch / "history"
        try:
            path.write_bytes(read_object(self._storage, ObjectName(manifest.history, Suffix.HISTORY)))
            with closing(History.read(path, fqrn=self._fqrn)) as history:
                tags = history.tags()
        except CvmfsGraphdriverError as error:
            yield f"the history: {error}"
            return
        for tag in tags:
            if tag.name == TRUNK and tag.root != manifest.root:
                yield f"tag {TRUNK} is {tag.root}, but the manifest's root catalog is {manifest.root}"
            yield from self._check_tree(CatalogReference(b"", tag.root, tag.size), f"tag {tag.name}")

    # Catalogs

    def _check_tree(self, root: CatalogReference, where: str) -> Iterator[str]:
        """Check a root catalog and everything below it."""
        findings: list[str] = []
        self._check_catalog(root, findings)
        yield from (f"{where}: {finding}" for finding in findings)

    def _check_catalog(self, reference: CatalogReference, findings: list[str]) -> Tally | None:
        """Check a catalog and those below it; returns the totals that it states, None if unknown."""
        known = self._seen_catalogs.get((reference.digest.raw, reference.path))
        if known is not None:
            return known
        what = f"catalog {ObjectName(reference.digest, Suffix.CATALOG)} of {shown(reference.path)}"
        try:
            content = read_object(self._storage, ObjectName(reference.digest, Suffix.CATALOG))
        except CvmfsGraphdriverError as error:
            findings.append(f"{what}: {error}")
            return None
        if reference.size and len(content) != reference.size:
            findings.append(f"{what} has {len(content)} bytes, but the reference to it says {reference.size}")
        file = self._scratch / f"catalog-{self.catalogs}"
        self.catalogs += 1
        file.write_bytes(content)
        try:
            with closing(Catalog.open(file, mountpoint=reference.path)) as catalog:
                tally = self._check_entries(catalog, what, findings)
                total = self._check_nested(catalog, what, findings)
                stated = catalog.counters
        except CvmfsGraphdriverError as error:
            findings.append(f"{what}: {error}")
            return None
        finally:
            file.unlink()
        for part, counted, said in (("self", tally, stated.self_), ("subtree", total, stated.subtree)):
            if counted is not None:
                findings.extend(
                    f"{what} says {part}_{one.name} = {getattr(said, one.name)}, but it is "
                    f"{getattr(counted, one.name)}"
                    for one in fields(Tally)
                    if getattr(counted, one.name) != getattr(said, one.name)
                )
        self._seen_catalogs[reference.digest.raw, reference.path] = stated.total
        return stated.total

    def _check_nested(self, catalog: Catalog, what: str, findings: list[str]) -> Tally | None:
        """The totals that the catalogs below state; None if one is unreadable."""
        total: Tally | None = Tally()
        for reference in catalog.nested():
            entry = catalog.lookup(reference.path)
            if entry is None:
                findings.append(
                    f"{what} refers to a catalog at {shown(reference.path)}, where there is no entry"
                )
            elif not entry.flags & LISTED_ELSEWHERE:
                findings.append(f"{what}: {shown(reference.path)} is not marked as a mountpoint")
            if entry is not None and EntryFlag.BIND_MOUNTPOINT in entry.flags:
                continue  # an old revision, which is checked through its tag
            below = self._check_catalog(reference, findings)
            total = None if below is None or total is None else total + below
        return total

    def _check_entries(self, catalog: Catalog, what: str, findings: list[str]) -> Tally:
        """Check a catalog's own entries."""
        tally = Tally(nested=sum(1 for _ in self._plain_references(catalog)))
        mountpoints = {reference.path for reference in catalog.nested()}
        groups: Counter[tuple[int, int]] = Counter()
        root = catalog.lookup(catalog.mountpoint)
        if root is None or not root.is_directory:
            findings.append(f"{what} has no root directory")
            return tally
        if catalog.mountpoint and EntryFlag.NESTED_ROOT not in root.flags:
            findings.append(f"{what}: its root directory is not marked as such")
        tally.count(root, 0)
        walked = 1
        pending = [catalog.mountpoint]
        while pending:
            directory = pending.pop()
            for entry in catalog.listing(directory, hidden=True):
                path = directory + b"/" + entry.name
                walked += 1
                here = f"{what}: {shown(path)}"
                findings.extend(f"{here} {finding}" for finding in _check_entry(entry))
                chunks: Sequence[Chunk] = ()
                try:
                    chunks = catalog.chunks(path)
                except CvmfsGraphdriverError as error:
                    findings.append(f"{here}: {error}")
                tally.count(entry, len(chunks))
                self._check_content(here, entry, chunks, findings)
                if entry.hardlink_group:
                    groups[entry.hardlink_group, entry.linkcount] += 1
                if EntryFlag.NESTED_MOUNTPOINT in entry.flags:
                    if path not in mountpoints:
                        findings.append(f"{here} is marked as a mountpoint, but no catalog is mounted there")
                elif entry.is_directory and path not in mountpoints:
                    pending.append(path)
        if walked != catalog.entries:
            findings.append(f"{what} has {catalog.entries} entries, but only {walked} of them can be reached")
        findings.extend(
            f"{what}: hard-link group {group} has {names} names but says {said}"
            for (group, said), names in groups.items()
            if names != said
        )
        return tally

    def _plain_references(self, catalog: Catalog) -> Iterator[CatalogReference]:
        for reference in catalog.nested():
            entry = catalog.lookup(reference.path)
            if entry is None or EntryFlag.BIND_MOUNTPOINT not in entry.flags:
                yield reference

    # Objects

    def _check_content(
        self, here: str, entry: DirectoryEntry, chunks: Sequence[Chunk], findings: list[str]
    ) -> None:
        if entry.is_external:
            return
        if entry.digest is not None:
            self._check_object(here, ObjectName(entry.digest, Suffix.NONE), entry, entry.size)
        elif entry.is_regular and not chunks:
            findings.append(f"{here} is a file without content")
        for chunk in chunks:
            self._check_object(here, ObjectName(chunk.digest, Suffix.PARTIAL), entry, chunk.size)
        findings.extend(self._drain(_MOST_WAITING))

    def _check_object(self, here: str, name: ObjectName, entry: DirectoryEntry, size: int) -> None:
        key = name.digest.raw + name.suffix.encode()
        if key not in self._seen_objects:
            self._seen_objects.add(key)
            self.objects += 1
            self._waiting.append(self._pool.submit(self._verify, here, name, entry, size))

    def _verify(self, here: str, name: ObjectName, entry: DirectoryEntry, size: int) -> tuple[int, str]:
        """How many bytes were read, and what is wrong, if anything."""
        try:
            if self._contents:
                return verify_object(self._storage, name, entry.compression, size), ""
            if not self._storage.has(name.path):
                return 0, f"{here}: object {name} is missing from {self._storage.location}"
        except CvmfsGraphdriverError as error:
            return 0, f"{here}: {error}"
        return 0, ""

    def _drain(self, most: int) -> Iterator[str]:
        """Wait until at most ``most`` objects are in flight; yields what is wrong with the others."""
        while len(self._waiting) > most:
            size, finding = self._waiting.popleft().result()
            self.bytes += size
            if finding:
                yield finding


def _check_entry(entry: DirectoryEntry) -> Iterator[str]:
    """What is inconsistent in an entry's columns."""
    expected = EntryFlag.DIRECTORY if entry.is_directory else EntryFlag.FILE
    if entry.is_symlink:
        expected |= EntryFlag.SYMLINK
    elif entry.is_special:
        expected |= EntryFlag.SPECIAL
    if entry.flags & _KIND_FLAGS != expected:
        yield f"has mode {entry.mode:o} and flags {entry.flags.value:#x}, which contradict each other"
    try:
        parse_xattrs(entry.xattr)
    except CvmfsGraphdriverError as error:
        yield f"has unreadable extended attributes: {error}"
