"""Magic extended attributes, in which a mounted repository describes itself and its files.

Owns: their names, which nodes have them, and the form of their values (CernVM-FS format reference, section
11). Must not know: FUSE, who asks.

A long value is split into pages: ``user.x~N`` is page N, ``user.x@N`` the same with a line of explanation for
people, ``user.x~?`` and ``user.x@?`` the number of pages; ``user.x`` is page 0.
"""

import os
import resource
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.client.addresses import shown_url
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.counters import ClientCounters, Count
from cvmfs_graphdriver.client.manifests import Manifests
from cvmfs_graphdriver.client.network.proxies import DIRECT
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.client.recentlog import RecentLog
from cvmfs_graphdriver.client.tree.catalogs import Catalogs
from cvmfs_graphdriver.client.tree.revision import Node, Revision
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.catalog.entry import Compression, EntryFlag
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.manifest import Manifest

if TYPE_CHECKING:
    from cvmfs_graphdriver.repository.catalog.counters import Tally

__all__ = ["MagicAttributes", "Subject"]

_PAGE = 40_000
_METAINFO_LIMIT = 65_536
_PIECE = 1 << 20


class Subject(Protocol):
    """The parts of a client that the attributes describe."""

    settings: RepositorySettings
    counters: ClientCounters
    log: RecentLog
    manifests: Manifests
    cache: Cache
    catalogs: Catalogs
    started: float
    next_refresh: float
    confirmed_manifest: Manifest | None

    @property
    def transfer(self) -> Transfer: ...
    @property
    def external(self) -> Transfer | None: ...
    @property
    def follows(self) -> bool: ...

    def metainfo(self, digest: Digest, limit: int) -> bytes: ...
    def cleanups(self, seconds: float) -> int: ...


class _Question(NamedTuple):
    """What is asked, and about what."""

    client: Subject
    revision: Revision
    node: Node


Answer = Callable[[_Question], str | bytes | None]


class MagicAttributes:
    """The attributes of one client's revisions."""

    def __init__(self, client: Subject) -> None:
        self._client = client
        presentation = client.settings.presentation
        self._visibility = presentation.magic_xattrs
        self._protected = presentation.protected_xattrs
        self._privileged = presentation.privileged_gids

    def names(self, revision: Revision, node: Node) -> Sequence[bytes]:
        """The attributes that a listing of this node shows; others can still be read."""
        if self._visibility == "never" or (self._visibility == "rootonly" and node.path):
            return ()
        names = list(_ANYWHERE)
        if revision.membership is not None:
            names.append(_MEMBERSHIP)
        if node.entry.digest is not None:
            names += _WITH_DIGEST
        if node.entry.is_regular:
            names += _REGULAR
        if node.entry.is_symlink:
            names += _SYMLINK
        return [name.encode() for name in sorted(names)]

    def value(self, revision: Revision, node: Node, name: bytes, gid: int) -> bytes | None:
        """The value for a caller of group ``gid``; None if it has no such attribute."""
        text = name.decode("ascii", "replace")
        base, mark, page = text, "", ""
        for separator in "~@":
            if separator in text:
                base, mark, page = text.partition(separator)[0], separator, text.rpartition(separator)[2]
        answer = _ANSWERS.get(base)
        if answer is None or (base in self._protected and gid not in self._privileged):
            return None
        found = answer(_Question(self._client, revision, node))
        if found is None:
            return None
        return _page(
            found.encode("utf-8", "surrogateescape") if isinstance(found, str) else found, mark, page
        )


# Pages


def _page(value: bytes, mark: str, page: str) -> bytes | None:
    pages = _pages(value)
    count = len(pages)
    if page == "?":
        how = b"Access xattr with xattr~<page_num> (machine-readable mode) or xattr@<page_num> "
        human = how + b"(human-readable mode).\nPages available: %d" % count
        return human if mark == "@" else b"num_pages, %d" % count
    if mark and not (page.isascii() and page.isdigit()):
        return None
    number = int(page[:9] or 0)
    if number >= count:
        return (
            b"Page requested does not exist. There are %d pages available." % count if mark == "@" else None
        )
    if mark == "@":
        return b"# Access page at idx: %d. Total num pages: %d\n%b" % (number, count, pages[number])
    return pages[number]


def _pages(value: bytes) -> list[bytes]:
    """Pages of whole lines."""
    pages = [b""]
    for line in value.splitlines(keepends=True):
        if pages[-1] and len(pages[-1]) + len(line) > _PAGE:
            pages.append(b"")
        pages[-1] += line
    return pages


# Values


def _counters(tally: "Tally") -> str:
    names = sorted(type(tally).__slots__)
    return "".join(f"{name},{getattr(tally, name)}\n" for name in names)


def _catalog_counters(ask: _Question) -> str:
    mount = ask.revision.mount_of(ask.node)
    place = mount.mountpoint.decode("utf-8", "surrogateescape")
    head = f"catalog_hash: {mount.digest}\ncatalog_mountpoint: {place}\n"
    return head + _counters(mount.catalog.counters.total)


def _chunk_list(ask: _Question) -> str | None:
    entry = ask.node.entry
    if not entry.is_regular:
        return None
    head = "hash,offset,size\n"
    if entry.is_chunked:
        chunks = ask.node.mount.catalog.chunks(ask.node.path)
        return head + "".join(f"{chunk.digest},{chunk.offset},{chunk.size}\n" for chunk in chunks)
    return f"{head}{entry.digest or ''},0,{entry.size}\n"


def _chunks(ask: _Question) -> str | None:
    if not ask.node.entry.is_regular:
        return None
    return str(len(ask.node.mount.catalog.chunks(ask.node.path)) if ask.node.entry.is_chunked else 1)


def _expires(ask: _Question) -> str:
    if not ask.client.follows:
        return "never (fixed root catalog)"
    return str(max(0, int(ask.client.next_refresh - time.monotonic())) // 60)


def _external_url(ask: _Question) -> str | None:
    if not ask.node.entry.is_external:
        return None
    external = ask.client.external
    return _host(external) + ask.node.path.decode("utf-8", "surrogateescape") if external else ""


def _external_timeout(ask: _Question) -> str:
    external = ask.client.external
    return str(int(external.timeout_direct if external else ask.client.settings.network.timeout_direct))


def _hash(ask: _Question) -> str | None:
    return None if ask.node.entry.digest is None else str(ask.node.entry.digest)


def _lhash(ask: _Question) -> str | None:
    """The digest of the cached content compressed as by stock servers, whatever this server did."""
    digest = ask.node.entry.digest
    if digest is None:
        return None
    hasher = digest.algorithm.new()
    compressor = zlib.compressobj()
    if ask.node.entry.size:  # an empty file need not be fetched
        descriptor = ask.client.cache.open(digest, compression=ask.node.entry.compression)
        if descriptor is None:
            return "Not in cache"
        with os.fdopen(descriptor, "rb") as file:
            while data := file.read(_PIECE):
                hasher.update(compressor.compress(data))
    hasher.update(compressor.flush())
    return hasher.digest().hex() + digest.algorithm.identifier


def _hitrate(ask: _Question) -> str:
    hits, misses = ask.client.counters[Count.HITS], ask.client.counters[Count.MISSES]
    return f"{100 * hits / (hits + misses):.3f}" if hits + misses else "n/a"


def _metainfo(ask: _Question) -> bytes | str:
    # The reference client knows the manifest only after it has once looked for a new revision.
    manifest = ask.client.confirmed_manifest
    if manifest is None:
        return "manifest not available"
    if manifest.metainfo is None:
        return "metainfo not available"
    try:
        return ask.client.metainfo(manifest.metainfo, _METAINFO_LIMIT)
    except CvmfsGraphdriverError as error:
        return f"Failed to open metadata file: {error}"


def _speed(ask: _Question) -> str:
    seconds = ask.client.counters.transfer_seconds
    return str(int(ask.client.counters[Count.BYTES_RECEIVED] / 1024 / seconds)) if seconds else "n/a"


def _host(transfer: Transfer | None) -> str:
    if transfer is None:
        return ""
    return shown_url(transfer.failover.hosts[transfer.failover.current_host])


def _host_list(ask: _Question) -> str:
    failover = ask.client.transfer.failover
    hosts, current = failover.hosts, failover.current_host
    return ";".join(map(shown_url, [*hosts[current:], *hosts[:current]]))


def _proxy_list(transfer: Transfer | None) -> str:
    groups = transfer.failover.groups.groups if transfer else ((DIRECT,),)
    return ";".join("|".join(proxy.address for proxy in group) for group in groups)


def _pubkeys(ask: _Question) -> bytes:
    return b"".join(key.pem for key in ask.client.manifests.public_keys)


def _counter(count: Count) -> Answer:
    return lambda ask: str(ask.client.counters[count])


def _of_regular(answer: Callable[[Node], str]) -> Answer:
    return lambda ask: answer(ask.node) if ask.node.entry.is_regular else None


_ANYWHERE: dict[str, Answer] = {
    "user.catalog_counters": _catalog_counters,
    "user.expires": _expires,
    "user.external_host": lambda ask: _host(ask.client.external),
    "user.external_timeout": _external_timeout,
    "user.fqrn": lambda ask: ask.revision.fqrn,
    "user.hitrate": _hitrate,
    "user.host": lambda ask: _host(ask.client.transfer),
    "user.host_list": _host_list,
    "user.inode_max": lambda ask: str(ask.client.catalogs.max_inode),
    "user.logbuffer": lambda ask: ask.client.log.text(),
    "user.maxfd": lambda _: str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    "user.ncleanup24": lambda ask: str(ask.client.cleanups(24 * 3600.0)),
    "user.nclg": lambda ask: str(len(ask.client.catalogs.open_mounts())),
    "user.ndiropen": _counter(Count.DIRECTORY_OPENS),
    "user.ndownload": _counter(Count.DOWNLOADS),
    "user.nioerr": _counter(Count.IO_ERRORS),
    "user.nopen": _counter(Count.OPENS),
    "user.pid": lambda _: str(os.getpid()),
    "user.proxy": lambda ask: ask.client.transfer.failover.current_proxy.address,
    "user.proxy_list": lambda ask: _proxy_list(ask.client.transfer),
    "user.proxy_list_external": lambda ask: _proxy_list(ask.client.external),
    "user.pubkeys": _pubkeys,
    "user.repo_counters": lambda ask: _counters(ask.revision.top.mount.catalog.counters.total),
    "user.repo_metainfo": _metainfo,
    "user.revision": lambda ask: str(ask.revision.number),
    "user.root_hash": lambda ask: str(ask.revision.root),
    "user.rx": lambda ask: str(ask.client.counters[Count.BYTES_RECEIVED] // 1024),
    "user.speed": _speed,
    "user.tag": lambda ask: ask.client.settings.revision.tag,
    "user.timeout": lambda ask: str(int(ask.client.transfer.timeout)),
    "user.timeout_direct": lambda ask: str(int(ask.client.transfer.timeout_direct)),
    "user.timestamp_last_ioerr": lambda ask: str(int(ask.client.counters.last_io_error)),
    "user.uptime": lambda ask: str(int(time.monotonic() - ask.client.started) // 60),
    "user.useddirp": lambda _: "0",  # the kernel opens directories on its own: no handle is ever held
    "user.usedfd": lambda _: str(len(os.listdir("/proc/self/fd"))),
    "user.version": lambda _: f"{__version__}.0",
}
_WITH_DIGEST: dict[str, Answer] = {"user.hash": _hash, "user.lhash": _lhash}
_REGULAR: dict[str, Answer] = {
    "user.chunk_list": _chunk_list,
    "user.chunks": _chunks,
    "user.compression": _of_regular(
        lambda node: "none" if node.entry.compression is Compression.NONE else "zlib"
    ),
    "user.direct_io": _of_regular(lambda node: str(int(EntryFlag.DIRECT_IO in node.entry.flags))),
    "user.external_file": _of_regular(lambda node: str(int(node.entry.is_external))),
}
_SYMLINK: dict[str, Answer] = {
    "user.rawlink": lambda ask: ask.node.entry.symlink if ask.node.entry.is_symlink else None,
    "xfsroot.rawlink": lambda ask: ask.node.entry.symlink if ask.node.entry.is_symlink else None,
}
_MEMBERSHIP = "user.authz"
_ANSWERS: dict[str, Answer] = {
    **_ANYWHERE,
    **_WITH_DIGEST,
    **_REGULAR,
    **_SYMLINK,
    "user.external_url": _external_url,
    _MEMBERSHIP: lambda ask: ask.revision.membership,
}
