"""A client of one repository: decides which revision is to be seen, and gives it out as a ``Revision``.

Owns: that decision (CernVM-FS format reference, sections 10.2 and 10.3): the newest revision that servers
prove, never one older than seen before, the one known last when no server can be asked, or the one that the
configuration names. Must not know: FUSE, when to look for a new revision (``refresher``).
"""

import logging
import math
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

from cvmfs_graphdriver.client.breadcrumb import Breadcrumb
from cvmfs_graphdriver.client.cache import Cache
from cvmfs_graphdriver.client.catalogs import Catalogs
from cvmfs_graphdriver.client.contents import Contents
from cvmfs_graphdriver.client.counters import Counters
from cvmfs_graphdriver.client.errors import CacheError, RevisionError
from cvmfs_graphdriver.client.fetcher import Fetcher, Wanted
from cvmfs_graphdriver.client.inodes import InodeTable
from cvmfs_graphdriver.client.manifests import Manifests
from cvmfs_graphdriver.client.network import open_transfer
from cvmfs_graphdriver.client.revision import Revision, Services
from cvmfs_graphdriver.client.settings import RepositorySettings
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import CatalogReference
from cvmfs_graphdriver.repository.history import History, Tag
from cvmfs_graphdriver.repository.manifest import Manifest

__all__ = ["Client"]

_DEFAULT_TTL = 240.0
_RETRY = 180.0
_HISTORY_LIMIT = 1024**3

_log = logging.getLogger(__name__)


class _Choice(NamedTuple):
    """A root catalog to mount, and the manifest that named it, if one did."""

    root: CatalogReference
    manifest: Manifest | None
    path: str = ""


class Client:
    """One repository as seen from this node; safe for any number of threads.

    ``now`` is the clock that whitelists expire by.
    """

    def __init__(
        self,
        settings: RepositorySettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        workspace = settings.cache.workspace
        try:
            workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot use the workspace {workspace}: {error.strerror}") from error
        self.cache = Cache(settings.cache.directory)
        self.transfer = open_transfer(settings.network, self.counters)
        self.external = open_transfer(settings.external, self.counters) if settings.external else None
        self.manifests = Manifests(settings, self.transfer, now)
        self._fetcher = Fetcher(self.transfer, self.cache, self.counters)
        inodes = InodeTable(workspace / f"inodes.{settings.fqrn}")
        self.catalogs = Catalogs(self._fetcher, self.cache, inodes, settings.cache.open_catalogs)
        self._services = Services(
            catalogs=self.catalogs,
            contents=Contents(self._fetcher, self.external),
            variables=settings.presentation.variables,
            magic=lambda revision, node, name: None,
            capacity=self._capacity,
            memory=settings.cache.metadata_memory,
        )
        self._breadcrumb = workspace / f"cvmfschecksum.{settings.fqrn}"
        self._lock = threading.Lock()
        self._current: Revision | None = None
        self.offline_because: CvmfsGraphdriverError | None = None
        """Why servers could not be asked, or not be believed, the last time; None if all was well."""

    @property
    def current(self) -> Revision | None:
        """The revision that was given out last."""
        return self._current

    @property
    def seconds_to_refresh(self) -> float:
        """How long to wait before looking for a new revision again."""
        if self.offline_because is not None:
            return _RETRY
        revision = self._current
        ttl = revision.ttl if revision else None
        limit = self.settings.revision.max_ttl
        return min(_DEFAULT_TTL if ttl is None else ttl, math.inf if limit is None else limit)

    @property
    def follows(self) -> bool:
        """Whether new revisions are mounted at all: not if the configuration names one."""
        return self.settings.revision.auto_update

    def mount(self) -> Revision:
        """The revision to be seen now.

        Raises TransferError, TrustError and the other errors of repositories where nothing can be proven and
        nothing is known from before; RevisionError: the revision that the configuration names does not
        exist, or is blacklisted; ConfigurationError, CacheError.
        """
        with self._lock:
            pinned = self._pinned()
            if pinned is not None:
                self._current = self._open(pinned)
            else:
                self._current = self._mount_newest()
            return self._current

    def refresh(self) -> Revision | None:
        """The newest revision if it is newer than the current one, else None.

        Raises as ``mount`` does; then the current revision stays, unless the error is a RevisionError.
        """
        with self._lock:
            current = self._current
            if current is None:
                raise RevisionError(f"{self.settings.fqrn} is not mounted yet")
            self._refuse_blacklisted(current.number)
            if not self.follows:
                return None
            try:
                newest = current.manifest.timestamp if current.manifest else 0
                manifest = self.manifests.newer_than(current.root, newest_timestamp=newest)
                if manifest is None or manifest.revision <= current.number:
                    self.offline_because = None
                    return None
                self._current = self._open_newest(manifest)
            except CvmfsGraphdriverError as error:
                self.offline_because = error
                raise
            self.offline_because = None
            return self._current

    def close(self) -> None:
        """Close connections and catalogs."""
        self.transfer.close()
        if self.external:
            self.external.close()
        self._services.contents.close()
        self.catalogs.close()

    # The newest revision

    def _mount_newest(self) -> Revision:
        known = Breadcrumb.read(self._breadcrumb)
        try:
            manifest = self.manifests.newest(newest_timestamp=known.timestamp if known else 0)
            if known and manifest.root != known.root and manifest.revision <= known.revision:
                revision = self._open(_Choice(CatalogReference(b"", known.root, 0), None))
            else:
                revision = self._open_newest(manifest)
        except CvmfsGraphdriverError as error:
            if known is None:
                raise
            return self._mount_known(known, error)
        self.offline_because = None
        return revision

    def _mount_known(self, known: Breadcrumb, error: CvmfsGraphdriverError) -> Revision:
        """Without servers that could be asked and believed: the revision that was mounted last."""
        self._refuse_blacklisted(known.revision)
        try:
            revision = self._open(_Choice(CatalogReference(b"", known.root, 0), None))
        except CvmfsGraphdriverError:
            raise error from None
        _log.warning("%s: mounting revision %d as known: %s", self.settings.fqrn, known.revision, error)
        self.offline_because = error
        return revision

    def _open_newest(self, manifest: Manifest) -> Revision:
        root = CatalogReference(b"", manifest.root, manifest.root_size)
        name = ObjectName(manifest.root, Suffix.CATALOG)
        path = name.alternative_path if self.manifests.alternative(manifest) else ""
        revision = self._open(_Choice(root, manifest, path))
        Breadcrumb(manifest.root, manifest.timestamp, manifest.revision).write(self._breadcrumb)
        return revision

    # A revision that the configuration names

    def _pinned(self) -> _Choice | None:
        wanted = self.settings.revision
        if wanted.root_hash is not None:
            return _Choice(CatalogReference(b"", wanted.root_hash, 0), None)
        if not wanted.tag and wanted.date is None:
            return None
        manifest = self.manifests.newest()
        tag = self._tag(manifest, wanted.tag, wanted.date)
        self._refuse_blacklisted(tag.revision)
        return _Choice(CatalogReference(b"", tag.root, tag.size), manifest)

    def _tag(self, manifest: Manifest, name: str, date: datetime | None) -> Tag:
        """The tag of that name, or, without a name, the newest revision of that time."""
        what = f"tag {name!r}" if date is None else f"revision as old as {date:%Y-%m-%d %H:%M:%S} UTC"
        if manifest.history is None:
            raise RevisionError(f"{self.settings.fqrn} has no {what}: it has no history at all")
        history_name = ObjectName(manifest.history, Suffix.HISTORY)
        path = history_name.alternative_path if self.manifests.alternative(manifest) else ""
        self._fetcher.fetch(Wanted(history_name, _HISTORY_LIMIT, exact=False, path=path, label="history"))
        with closing(History.open(self.cache.path(manifest.history), fqrn=self.settings.fqrn)) as history:
            tag = history.tag(name) if date is None else history.at(int(date.timestamp()))
        if tag is None:
            raise RevisionError(f"{self.settings.fqrn} has no {what}")
        return tag

    # Both

    def _refuse_blacklisted(self, number: int) -> None:
        if self.manifests.blacklist().refuses_revision(self.settings.fqrn, number):
            raise RevisionError(f"revision {number} of {self.settings.fqrn} is blacklisted")

    def _open(self, choice: _Choice) -> Revision:
        mount = self.catalogs.mount(choice.root, choice.path)
        revision = Revision(self.settings.fqrn, choice.manifest, mount, self._services)
        self._refuse_blacklisted(revision.number)
        return revision

    def _capacity(self) -> tuple[int, int]:
        return 0, 0
