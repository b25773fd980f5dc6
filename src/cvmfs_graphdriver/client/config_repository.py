"""The configuration repository, for nodes on which nobody has mounted it.

Owns: a copy of its ``etc/cvmfs`` in the workspace of a client that is made for it, kept until a newer
revision replaces it (CernVM-FS format reference, section 7.1). Must not know: what the files say.

Files are replaced one by one and each as a whole, for others may read the copy meanwhile.
"""

import logging
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_graphdriver.client.configuration.search import ConfigRepository, mounted_config_repository
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.whole_file import write_whole_file

if TYPE_CHECKING:
    from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
    from cvmfs_graphdriver.client.tree.revision import Node, Revision

__all__ = ["fetched_config_repository", "kept_config_repository"]

_OF_THE_NODE = ("CVMFS_CACHE_BASE", "CVMFS_HTTP_PROXY", "CVMFS_KEYS_DIR", "CVMFS_QUOTA_LIMIT")
"""What a caller may say about every repository, and so about this one."""
_ROOT = b"/etc/cvmfs"
_MARK = ".root"
_FILE_LIMIT = 1 << 20
_COUNT_LIMIT = 10_000

_log = logging.getLogger(__name__)


def kept_config_repository(etc: Path, overrides: Mapping[str, str]) -> ConfigRepository:
    """Finds it where it is mounted, or else the copy that was made last. Asks nobody."""

    def find(name: str, directory: Path) -> Path | None:
        if mounted := mounted_config_repository(name, directory):
            return mounted
        with suppress(CvmfsGraphdriverError):
            copy = _place(_settings(name, etc, overrides))
            return copy if (copy / _MARK).exists() else None
        return None

    return find


def fetched_config_repository(etc: Path, overrides: Mapping[str, str]) -> ConfigRepository:
    """Finds it where it is mounted, or else makes a copy; the last one will do if no server can be asked."""
    kept = kept_config_repository(etc, overrides)

    def find(name: str, directory: Path) -> Path | None:
        if mounted := mounted_config_repository(name, directory):
            return mounted
        try:
            settings = _settings(name, etc, overrides)
            _fetch(settings, _place(settings))
        except CvmfsGraphdriverError as error:
            _log.warning("cannot fetch the configuration repository %s: %s", name, error)
        return kept(name, directory)

    return find


def _settings(name: str, etc: Path, overrides: Mapping[str, str]) -> "RepositorySettings":
    from cvmfs_graphdriver.client.configuration.settings import load_settings  # which may call us

    known = {key: value for key, value in overrides.items() if key in _OF_THE_NODE}
    return load_settings(name, etc, known, config_repository=mounted_config_repository)


def _place(settings: "RepositorySettings") -> Path:
    return settings.cache.workspace / f"config.{settings.fqrn}"


def _fetch(settings: "RepositorySettings", place: Path) -> None:
    """Make the copy at ``place`` that of the newest revision. Raises as ``Client.mount`` does."""
    from cvmfs_graphdriver.client.client import Client  # few nodes need this

    with closing(Client(settings)) as client:
        revision = client.mount()
        mark = place / _MARK
        root = str(revision.root)
        try:
            place.mkdir(mode=0o755, exist_ok=True)
            if mark.exists() and mark.read_text(encoding="ascii") == root:
                return
            _copy(revision, place)
            write_whole_file(mark, root.encode())
        except OSError as error:
            raise CacheError(f"cannot keep the configuration repository in {place}: {error}") from error


def _copy(revision: "Revision", place: Path) -> None:
    wanted = {place / _MARK}
    for count, (path, node) in enumerate(_files(revision)):
        if count == _COUNT_LIMIT:
            raise CacheError(f"{revision.fqrn} has more than {_COUNT_LIMIT} files of configuration")
        if node.entry.size <= _FILE_LIMIT:
            target = place / os.fsdecode(path.lstrip(b"/"))
            wanted |= {target, *target.parents}
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with closing(revision.open(node)) as file:
                write_whole_file(target, file.pread(node.entry.size, 0))
    for old in sorted(place.rglob("*"), reverse=True):  # what is in a directory comes before it
        if old not in wanted:
            if old.is_dir():
                old.rmdir()
            else:
                old.unlink(missing_ok=True)


def _files(revision: "Revision") -> Iterator[tuple[bytes, "Node"]]:
    """Paths and what is there; a link that leads to a file of the repository stands for that file."""
    top = revision.lookup(_ROOT)
    waiting = [] if top is None else [top]
    while waiting:
        for child in revision.children(waiting.pop()):
            node: Node | None = child
            if child.entry.is_directory:
                waiting.append(child)
            elif child.entry.is_symlink:
                there = posixpath.join(posixpath.dirname(child.path), revision.readlink(child))
                node = revision.lookup(posixpath.normpath(there))
            if node is not None and node.entry.is_regular:
                yield child.path, node
