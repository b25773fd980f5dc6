"""The process that serves one repository to the kernel.

Owns: the parts of such a process: a client, the tree that is shown, the serving threads, and one that looks
for new revisions. Must not know: who forked it, and who forks another if it dies.
"""

import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cvmfs_graphdriver.client.administration.talk import Talk
from cvmfs_graphdriver.client.administration.talk_socket import serve_talk
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.config_repository import fetched_config_repository, load_settings
from cvmfs_graphdriver.client.configuration.settings import PresentationSettings
from cvmfs_graphdriver.client.errors import ClientError, RevisionError
from cvmfs_graphdriver.client.retreat import Retreat
from cvmfs_graphdriver.client.tree.revision import Revision
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.fuse.filesystem import Filesystem
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight
from cvmfs_graphdriver.kernel.fuse.server import Server
from cvmfs_graphdriver.kernel.fuse.wire import ROOT_NODE, StatFs
from cvmfs_graphdriver.kernel.memory.garbage import look_for_garbage_seldom
from cvmfs_graphdriver.kernel.memory.heap import share_one_heap
from cvmfs_graphdriver.kernel.waiting.watch import Watch
from cvmfs_graphdriver.planes.errors import ServerError
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED, OwnerMap, load_owner_map
from cvmfs_graphdriver.planes.filesystem.revision_filesystem import Presentation, RevisionFilesystem
from cvmfs_graphdriver.planes.service.process import configure_logging, configure_process
from cvmfs_graphdriver.planes.service.request import MountRequest, no_longer_for_everybody
from cvmfs_graphdriver.planes.service.vitals import Vitals
from cvmfs_graphdriver.planes.tree import Tree
from cvmfs_graphdriver.planes.walk.page_cache import PageCache

__all__ = ["serve_repository"]

_log = logging.getLogger(__name__)

_RESERVED_FILES = 512
"""Descriptors reserved for other than users' files: catalogs, connections, the device."""

_OPEN_FILES = 1024
"""Opening a file again when the kernel asks for it costs less than keeping thousands open."""
_BEAT = 1.0
"""Seconds between two signs of life."""
_SWEEP = 60.0
"""Seconds between two searches for open files that have been evicted and are not being read."""
_UNSEEN = 600.0
"""Seconds after which the use of a file must be noticed again if files may soon be evicted."""
_BLOCK = 512
_PAUSE = 1.0
"""The shortest time between two checks for a new revision, in seconds."""


def serve_repository(
    request: MountRequest,
    device: int,
    inflight: InFlight,
    ready: Callable[[dict[str, bool]], None],
    vitals: Vitals,
    retreat: Retreat,
) -> None:
    """Serve through ``device`` until it is unmounted; ``vitals`` and ``retreat`` are the keeper's.

    When the repository can be read, ``ready`` is called with the mount options ``suid``,
    ``check_permissions`` and ``everybody`` (else only root may use it); serving begins when it returns.
    Raises ClientError, RepositoryError: the repository cannot be read.
    """
    watch = Watch()
    threading.Thread(target=_live, args=(vitals, watch), name="watch", daemon=True).start()
    find = fetched_config_repository(request.etc, request.overrides)
    settings = load_settings(request.fqrn, request.etc, request.overrides, config_repository=find)
    configure_logging(settings.operation)
    configure_process(settings.operation)
    look_for_garbage_seldom()
    share_one_heap()
    client = Client(settings, retreat=retreat, opening=vitals.show)
    try:
        _Service(request, client, settings.presentation, device).run(inflight, ready, watch)
    finally:
        client.close()


def _live(vitals: Vitals, watch: Watch) -> None:
    """Show the keeper that this process lives, and the log what takes long."""
    while True:
        vitals.beat()
        watch.look(time.monotonic())
        time.sleep(_BEAT)


class _Service:
    """Serves one repository in this process."""

    def __init__(
        self, request: MountRequest, client: Client, presentation: PresentationSettings, device: int
    ) -> None:
        self._request = request
        self._client = client
        self._settings = presentation
        self._device = device
        self._stop = threading.Event()
        revision = client.mount()
        self._everybody = revision.membership is None
        self._filesystem = RevisionFilesystem(
            self._shown(revision),
            self._presentation(),
            self._statfs,
            client.counters,
            PageCache(device),
        )

    def run(self, inflight: InFlight, ready: Callable[[dict[str, bool]], None], watch: Watch) -> None:
        """Serve until the file system is unmounted."""
        server = Server(self._device, self._served(), inflight)
        watch.tasks = server.tasks
        ready(
            {
                "suid": self._request.suid or self._settings.suid,
                "check_permissions": self._settings.check_permissions,
                "everybody": self._everybody,
            }
        )
        follower = threading.Thread(target=self._follow, args=(server,), name="revisions", daemon=True)
        follower.start()
        threading.Thread(target=self._tidy, args=(server,), name="janitor", daemon=True).start()
        with self._talk(server):
            server.serve()
        self._stop.set()
        self._filesystem.close()

    @contextmanager
    def _talk(self, server: Server) -> Iterator[None]:
        """Answer administrators meanwhile; a mount without the talk socket is better than none."""
        settings = self._client.settings
        talk = Talk(self._client, self._request.target, lambda past: self._show_newest(server, past))
        with ExitStack() as stack:
            try:
                stack.enter_context(serve_talk(settings.talk_socket, talk.answer, settings.talk_owner))
            except ClientError as error:
                _log.warning("%s", error)
            yield

    def _served(self) -> Filesystem:
        """The tree, with the fetch trigger if requested."""
        if not self._request.triggers:
            return self._filesystem
        from cvmfs_graphdriver.planes.erofs.fetching import Fetching, describe_catalog
        from cvmfs_graphdriver.planes.erofs.trigger import TriggerFilesystem

        fetching = Fetching(self._client)
        threading.Thread(target=fetching.tidy, args=(self._stop,), name="links", daemon=True).start()
        return TriggerFilesystem(
            self._filesystem,
            self._request.fqrn,
            fetching.fetch,
            lambda inode: self._revision().node(inode),
            lambda node: describe_catalog(self._revision(), node),
        )

    def _revision(self) -> Revision:
        return self._client.current or self._client.mount()

    def _shown(self, revision: Revision) -> Tree:
        if not self._request.whiteouts:
            return revision
        from cvmfs_graphdriver.planes.filesystem.whiteouts import OverlayTree

        return OverlayTree(revision)

    def _presentation(self) -> Presentation:
        shown = self._settings
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        wanted = self._client.settings.cache.open_files
        if shown.claim_ownership:
            uids, gids = OwnerMap(default=os.getuid()), OwnerMap(default=os.getgid())
        else:
            uids = load_owner_map(shown.uid_map) if shown.uid_map else UNCHANGED
            gids = load_owner_map(shown.gid_map) if shown.gid_map else UNCHANGED
        return Presentation(
            uids=uids,
            gids=gids,
            world_readable=shown.world_readable,
            open_files=max(16, min(wanted, hard - _RESERVED_FILES, _OPEN_FILES)),
            # Layers are looked up when a container is made, by few and at once after they were published.
            root_names=0 if self._request.whiteouts else 1,
        )

    def _statfs(self) -> StatFs:
        totals = self._revision().statfs()
        if not totals.size and not self._request.whiteouts:
            return StatFs(0, 0, 0, 0, 0, 0)  # as the reference client for a cache without a limit
        return StatFs(totals.size // _BLOCK, totals.free // _BLOCK, totals.files, totals.files)

    def _follow(self, server: Server) -> None:
        """Show new revisions as they appear.

        A newly started server may show a newer root than its predecessor, so it first makes the kernel forget
        that one.
        """
        server.invalidate_inode(ROOT_NODE)
        while not self._stop.wait(max(_PAUSE, self._client.next_refresh - time.monotonic())):
            try:
                self._show_newest(server)
            except (RevisionError, ServerError) as error:
                # This revision must not be shown any longer; the next server shows another one, or nothing.
                _log.critical("ending the server: %s", error)
                os._exit(error.exit_code)
            except CvmfsGraphdriverError as error:
                _log.warning("cannot look for a new revision: %s", error)

    def _tidy(self, server: Server) -> None:
        """Clean up, because the kernel never says that it uses a file or has finished with one."""
        asked = time.monotonic()
        while not self._stop.wait(_SWEEP):
            self._filesystem.close_evicted()
            if self._client.is_cache_filling and time.monotonic() - asked > _UNSEEN:
                asked = time.monotonic()
                for inode in self._filesystem.to_be_asked_for():
                    server.invalidate_inode(inode)

    def _show_newest(self, server: Server, past_caches: bool = False) -> Revision | None:  # noqa: FBT001, FBT002
        """Look for a new revision and show it; None if there is none. Raises as ``Client.refresh``."""
        revision = self._client.refresh(past_caches=past_caches)
        if revision is not None:
            if revision.membership is not None and self._everybody and not self._request.shows_layers:
                raise no_longer_for_everybody(revision.fqrn)
            _log.info("%s: now showing revision %d", revision.fqrn, revision.number)
            self._filesystem.replace(self._shown(revision))
            server.invalidate_inode(ROOT_NODE)
        return revision
