"""A client of one repository: decides which revision is mounted, and provides it as a ``Revision``.

Owns: that decision (CernVM-FS format reference, sections 10.2 and 10.3): the newest verified revision on the
servers, never an older one than before, the last known one when no server can be reached, or the one that
the configuration names. Must not know: FUSE, who checks for new revisions and when.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cvmfs_graphdriver.client.breadcrumb import Breadcrumb
from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.cache.eviction import Eviction
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.configuration.unknown import warn_of_ineffective
from cvmfs_graphdriver.client.counters import ClientCounters, Count
from cvmfs_graphdriver.client.errors import CacheError, RevisionError
from cvmfs_graphdriver.client.manifests import Manifests
from cvmfs_graphdriver.client.network.network import Network, client_identifier
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.client.objects.contents import Contents
from cvmfs_graphdriver.client.objects.fetcher import Fetcher
from cvmfs_graphdriver.client.objects.prefetcher import Prefetcher
from cvmfs_graphdriver.client.recentlog import RecentLog
from cvmfs_graphdriver.client.retreat import NO_RETREAT, Retreat
from cvmfs_graphdriver.client.tree.catalogs import Catalogs
from cvmfs_graphdriver.client.tree.inodes import InodeTable
from cvmfs_graphdriver.client.tree.magic import MagicAttributes
from cvmfs_graphdriver.client.tree.revision import Node, Revision, Services
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest

if TYPE_CHECKING:
    from cvmfs_graphdriver.repository.history import Tag

__all__ = ["Client"]

_DEFAULT_TTL = 240.0
_RETRY = 180.0
_HISTORY_LIMIT = 1024**3
_FILLING = 0.75
"""The share of the quota above which eviction is imminent."""

_log = logging.getLogger(__name__)


class _Choice(NamedTuple):
    """A root catalog to mount, and the manifest that names it, if any."""

    root: CatalogReference
    manifest: Manifest | None
    path: str = ""


class Client:
    """One repository as seen from this node; safe for any number of threads.

    ``now`` is the clock for the expiry of whitelists. ``retreat`` names revisions to avoid; ``opening`` is
    called with each root catalog before it is opened.
    """

    settings: RepositorySettings
    counters: ClientCounters
    log: RecentLog
    network: Network
    external_network: Network | None
    """For external files, if external servers are configured."""
    manifests: Manifests
    cache: Cache
    catalogs: Catalogs
    started: float
    """When the client started, on the clock ``time.monotonic``."""
    next_refresh: float
    """When to check for a new revision again, on the clock ``time.monotonic``."""
    offline_because: CvmfsGraphdriverError | None
    """Why the last check for a new revision failed; None if it succeeded."""
    max_ttl: float | None
    """The maximum time between checks for a new revision, in seconds; None for no limit."""
    avoiding: Digest | None
    """The root catalog that would be shown if servers had not died of it."""
    confirmed_manifest: Manifest | None
    """The manifest that the last check after mounting found to be the newest."""

    def __init__(
        self,
        settings: RepositorySettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retreat: Retreat = NO_RETREAT,
        opening: Callable[[Digest], None] = lambda _: None,
    ) -> None:
        warn_of_ineffective(settings.configuration)
        self.settings = settings
        self.counters = ClientCounters()
        self.log = RecentLog()
        self.started = time.monotonic()
        self.next_refresh = self.started
        self.offline_because = None
        self.confirmed_manifest = None
        self.max_ttl = settings.revision.max_ttl
        self.avoiding = None
        self._retreat, self._opening = retreat, opening
        self._lock = threading.Lock()
        self._current: Revision | None = None
        self._newest_timestamp = 0
        with ExitStack() as stack:
            self._assemble(stack, now)
            self._stack = stack.pop_all()

    def _assemble(self, stack: ExitStack, now: Callable[[], datetime]) -> None:
        """Assemble the parts; if one fails, those before it are closed."""
        settings = self.settings
        workspace = settings.cache.workspace
        try:
            workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot use the workspace {workspace}: {error.strerror}") from error
        identifier = client_identifier(workspace)
        self.network = Network(settings.network, self.counters, identifier)
        stack.callback(self.network.close)
        self.external_network = None
        if settings.external is not None:
            self.external_network = Network(settings.external, self.counters, identifier)
            stack.callback(self.external_network.close)
        self.manifests = Manifests(settings, self.transfer, now)
        inodes = InodeTable(workspace / f"inodes.{settings.fqrn}")
        self._breadcrumb = workspace / f"cvmfschecksum.{settings.fqrn}"
        self.cache = Cache(settings.cache.directory, settings.cache.quota, alien=settings.cache.alien)
        stack.callback(self.cache.close)
        self._fetcher = Fetcher(self.transfer, self.cache, self.counters)
        self.catalogs = Catalogs(self._fetcher, self.cache, inodes, settings.cache.open_catalogs)
        stack.callback(self.catalogs.close)
        prefetcher = Prefetcher(
            self._fetcher, self.transfer, settings.cache.directory, alien=settings.cache.alien
        )
        stack.callback(prefetcher.close)
        contents = Contents(self._fetcher, prefetcher, self.external)
        logging.getLogger("cvmfs_graphdriver").addHandler(self.log)
        stack.callback(logging.getLogger("cvmfs_graphdriver").removeHandler, self.log)
        self._services = Services(
            catalogs=self.catalogs,
            contents=contents,
            variables=settings.presentation.variables,
            magic=MagicAttributes(self),
            capacity=self._capacity,
            memory=settings.cache.metadata_memory,
        )
        self.cache.on_full.append(lambda: self.counters.add(Count.CACHE_FULL))
        if self.cache.eviction is not None:
            self.cache.eviction.on_pressure.append(self.catalogs.detach)

    @property
    def transfer(self) -> Transfer:
        """Transfers from the repository's servers."""
        return self.network.transfer

    @property
    def external(self) -> Transfer | None:
        """Transfers from external servers, if configured."""
        return self.external_network.transfer if self.external_network else None

    @property
    def current(self) -> Revision | None:
        """The revision that was mounted last."""
        return self._current

    @property
    def follows(self) -> bool:
        """Whether to follow new revisions: not if the configuration names one."""
        return self.settings.revision.auto_update

    def mount(self) -> Revision:
        """The revision to be mounted now.

        Raises TransferError, TrustError and other repository errors if no revision can be verified and none
        is known from before; RevisionError if the revision that the configuration names does not exist or is
        blacklisted; ConfigurationError, CacheError.
        """
        with self._lock:
            if self.settings.network.use_geoapi and len(self.transfer.failover.hosts) > 1:
                self.network.sort_by_distance()
            pinned = self._pinned()
            self._current = self._mount_newest() if pinned is None else self._open(pinned)
            return self._current

    def refresh(self, *, past_caches: bool = False) -> Revision | None:
        """The newest revision if it is newer than the current one, else None.

        With ``past_caches``, no HTTP cache may answer.

        Raises what ``mount`` raises. The current revision stays in use then, unless the error is a
        RevisionError: it has been blacklisted since without a replacement, and must not be used any more.
        """
        with self._lock:
            current = self._mounted()
            if not self.follows:
                self._refuse_blacklisted(current.number)
                return None
            try:
                newer = self._newer_than(current, past_caches=past_caches)
            except CvmfsGraphdriverError as error:
                self._schedule(error)
                self._refuse_blacklisted(current.number)
                raise
            self._schedule(None)
            if newer is None:
                self._refuse_blacklisted(current.number)
            return newer

    def open_object(self, wanted: Wanted) -> int:
        """A descriptor of an object in the cache, fetched if necessary; it belongs to the caller.

        Raises TransferError, RepositoryError, CacheError.
        """
        return self._fetcher.open(wanted)

    def metainfo(self, digest: Digest, limit: int) -> bytes:
        """The repository's self-description: at most ``limit`` bytes. Raises what ``mount`` raises."""
        wanted = Wanted(ObjectName(digest, Suffix.METAINFO), limit, exact=False, label="metainfo")
        with os.fdopen(self._fetcher.open(wanted), "rb") as file:
            return file.read(limit)

    def regular_file(self, path: bytes) -> Node | None:
        """A regular file of the current revision; None if there is none. Raises what ``mount`` raises."""
        node = self._mounted().lookup(path)
        return node if node and node.entry.is_regular else None

    def pin(self, file: Node) -> bool:
        """Fetch a regular file and keep it in the cache until it is evicted by name.

        Returns False if it does not fit. Raises what ``mount`` raises; CacheError: the cache has no quota.
        """
        eviction = self.eviction
        with closing(self._mounted().open(file)) as content:
            content.fetch_all()
        kept = [eviction.pin(name) for name in self._objects(file)]
        return all(kept)

    def evict(self, file: Node) -> bool:
        """Remove a regular file from the cache, even if it is pinned.

        Returns False if a process holds some of it. Raises CacheError: the cache has no quota, or is damaged.
        """
        gone = [self.eviction.evict(name) for name in self._objects(file)]
        return all(gone)

    @property
    def eviction(self) -> Eviction:
        """The manager of the cache. Raises CacheError: the cache has no quota."""
        if self.cache.eviction is None:
            raise CacheError("this cache has no quota")
        return self.cache.eviction

    def cleanups(self, seconds: float) -> int:
        """How often this process evicted objects in the last ``seconds``; -1 without a quota."""
        quota = self.cache.eviction
        return -1 if quota is None else quota.evictions_since(time.monotonic() - seconds)

    @property
    def is_cache_filling(self) -> bool:
        """Whether objects may have to be evicted soon."""
        quota = self.cache.eviction
        return quota is not None and quota.used > _FILLING * quota.limit

    def close(self) -> None:
        """Close connections, catalogs and the cache."""
        self._stack.close()

    def _mounted(self) -> Revision:
        if self._current is None:
            raise RevisionError(f"{self.settings.fqrn} is not mounted yet")
        return self._current

    # The newest revision

    def _mount_newest(self) -> Revision:
        known = Breadcrumb.read(self._breadcrumb)
        self._newest_timestamp = known.timestamp if known else 0
        try:
            manifest = self.manifests.newest(newest_timestamp=self._newest_timestamp)
            if known and manifest.root != known.root and manifest.revision <= known.revision:
                revision = self._open(_Choice(CatalogReference(b"", known.root, 0), None))
            else:
                revision = self._open_newest(manifest)
        except CvmfsGraphdriverError as error:
            if known is None:
                raise
            return self._mount_known(known, error)
        self._schedule(None, revision)
        return revision

    def _newer_than(self, current: Revision, *, past_caches: bool) -> Revision | None:
        manifest = self.manifests.newer_than(
            current.root, newest_timestamp=self._newest_timestamp, past_caches=past_caches
        )
        if manifest is None or manifest.revision <= current.number or self._retreat.from_(manifest.root):
            self.confirmed_manifest = current.manifest
            return None
        self._current = self._open_newest(manifest)
        self.confirmed_manifest = manifest
        return self._current

    def _schedule(self, error: CvmfsGraphdriverError | None, revision: Revision | None = None) -> None:
        """Schedule the next check: after the revision's time to live, or sooner if this one failed."""
        self.offline_because = error
        wait = _RETRY
        if error is None:
            shown = revision or self._current
            ttl = shown.ttl if shown else None
            limit = math.inf if self.max_ttl is None else self.max_ttl
            wait = min(_DEFAULT_TTL if ttl is None else ttl, limit)
        self.next_refresh = time.monotonic() + wait

    def _mount_known(self, known: Breadcrumb, error: CvmfsGraphdriverError) -> Revision:
        """If no server can be reached and believed: the revision that was mounted last."""
        self._refuse_blacklisted(known.revision)
        try:
            revision = self._open(_Choice(CatalogReference(b"", known.root, 0), None))
        except CvmfsGraphdriverError:
            raise error from None
        _log.warning("%s: mounting the last known revision %d: %s", self.settings.fqrn, known.revision, error)
        self._schedule(error)
        return revision

    def _open_newest(self, manifest: Manifest) -> Revision:
        root = CatalogReference(b"", manifest.root, manifest.root_size)
        name = ObjectName(manifest.root, Suffix.CATALOG)
        path = name.alternative_path if self.manifests.alternative(manifest) else ""
        revision = self._open(_Choice(root, manifest, path))
        Breadcrumb(manifest.root, manifest.timestamp, manifest.revision).write(self._breadcrumb)
        self._newest_timestamp = manifest.timestamp
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

    def _tag(self, manifest: Manifest, name: str, date: datetime | None) -> "Tag":
        """The tag of that name, or, without a name, the newest revision at that date."""
        what = f"tag {name!r}" if date is None else f"revision as old as {date:%Y-%m-%d %H:%M:%S} UTC"
        from cvmfs_graphdriver.repository.history import History  # few mounts name a tag

        if manifest.history is None:
            raise RevisionError(f"{self.settings.fqrn} has no {what}: it has no history")
        history_name = ObjectName(manifest.history, Suffix.HISTORY)
        path = history_name.alternative_path if self.manifests.alternative(manifest) else ""
        self._fetcher.fetch(Wanted(history_name, _HISTORY_LIMIT, exact=False, path=path, label="history"))
        with closing(History.read(self.cache.path(manifest.history), fqrn=self.settings.fqrn)) as history:
            tag = history.tag(name) if date is None else history.at(int(date.timestamp()))
        if tag is None:
            raise RevisionError(f"{self.settings.fqrn} has no {what}")
        return tag

    # All revisions

    def _refuse_blacklisted(self, number: int) -> None:
        if self.manifests.blacklist().refuses_revision(self.settings.fqrn, number):
            raise RevisionError(f"revision {number} of {self.settings.fqrn} is blacklisted")

    def _open(self, choice: _Choice) -> Revision:
        wanted = choice.root.digest
        good = self._retreat.from_(wanted)
        self.avoiding = wanted if good else None
        if good is not None:
            choice = _Choice(CatalogReference(b"", good, 0), None)
        self._opening(choice.root.digest)
        mount = self.catalogs.mount(choice.root, choice.path)
        revision = Revision(self.settings.fqrn, choice.manifest, mount, self._services)
        self._refuse_blacklisted(revision.number)
        return revision

    def _capacity(self) -> tuple[int, int]:
        """The limit of the cache, and how much of it is free, in bytes."""
        quota = self.cache.eviction
        if quota is None:
            return 0, 0
        return quota.limit, max(0, quota.limit - quota.used)

    def _objects(self, file: Node) -> list[str]:
        """The names in the cache of the objects that a regular file consists of."""
        entry = file.entry
        if entry.is_chunked:
            digests = [chunk.digest for chunk in file.mount.catalog.chunks(file.path)]
        else:
            digests = [] if entry.digest is None else [entry.digest]
        return [self.cache.name(digest, entry.compression) for digest in digests]
