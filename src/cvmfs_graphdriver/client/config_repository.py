"""The configuration repository, on nodes where it is not mounted; and the settings that result from it.

Owns: a copy of its ``etc/cvmfs`` in the workspace of a client made for this purpose, kept until a newer
revision replaces it (CernVM-FS format reference, section 7.1), and ``load_settings``, which uses that copy.
Must not know: what the files mean.

Each file is replaced atomically, because other processes may be reading the copy.
"""

import logging
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_graphdriver.client.configuration.meaning import settings_of
from cvmfs_graphdriver.client.configuration.search import (
    ConfigRepository,
    load_configuration,
    mounted_config_repository,
)
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.whole_file import write_whole_file

if TYPE_CHECKING:
    from cvmfs_graphdriver.client.tree.revision import Node, Revision

__all__ = ["fetched_config_repository", "kept_config_repository", "load_settings"]

_OF_THE_NODE = ("CVMFS_CACHE_BASE", "CVMFS_HTTP_PROXY", "CVMFS_KEYS_DIR", "CVMFS_QUOTA_LIMIT")
"""The overrides that apply to every repository, and therefore to this one."""
_ROOT = b"/etc/cvmfs"
_MARK = ".root"
_FILE_LIMIT = 1 << 20
_COUNT_LIMIT = 10_000

_log = logging.getLogger(__name__)


def load_settings(
    fqrn: str,
    etc: Path = Path("/etc/cvmfs"),
    overrides: Mapping[str, str] | None = None,
    *,
    config_repository: ConfigRepository | None = None,
) -> RepositorySettings:
    """Read the configuration of ``fqrn`` below ``etc``; ``overrides`` take precedence over every file.

    ``config_repository`` finds or fetches the configuration repository, if one is configured. By default it
    is used where it is mounted, or else the copy that was fetched last.

    Raises ConfigurationError: the repository name or a value is invalid, a file cannot be evaluated, or a
    mandatory parameter is missing.
    """
    find = config_repository or kept_config_repository(etc, overrides or {})
    return settings_of(load_configuration(fqrn, etc, overrides or {}, find), etc)


def kept_config_repository(etc: Path, overrides: Mapping[str, str]) -> ConfigRepository:
    """Uses it where it is mounted, or else the last copy. Contacts no server."""

    def find(name: str, directory: Path) -> Path | None:
        if mounted := mounted_config_repository(name, directory):
            return mounted
        with suppress(CvmfsGraphdriverError):
            copy = _place(_settings(name, etc, overrides))
            return copy if (copy / _MARK).exists() else None
        return None

    return find


def fetched_config_repository(etc: Path, overrides: Mapping[str, str]) -> ConfigRepository:
    """Uses it where it is mounted, else a fresh copy, or the last one if no server can be reached."""
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


def _settings(name: str, etc: Path, overrides: Mapping[str, str]) -> RepositorySettings:
    known = {key: value for key, value in overrides.items() if key in _OF_THE_NODE}
    return settings_of(load_configuration(name, etc, known, mounted_config_repository), etc)


def _place(settings: RepositorySettings) -> Path:
    return settings.cache.workspace / f"config.{settings.fqrn}"


def _fetch(settings: RepositorySettings, place: Path) -> None:
    """Update the copy at ``place`` to the newest revision. Raises what ``Client.mount`` raises."""
    from cvmfs_graphdriver.client.client import Client  # heavy, and few processes fetch

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
            raise CacheError(f"cannot store the configuration repository in {place}: {error}") from error


def _copy(revision: "Revision", place: Path) -> None:
    wanted = {place / _MARK}
    for count, (path, node) in enumerate(_files(revision)):
        if count == _COUNT_LIMIT:
            raise CacheError(f"{revision.fqrn} has more than {_COUNT_LIMIT} configuration files")
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
    """Paths and their nodes; a symbolic link to a file of the repository yields that file."""
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
