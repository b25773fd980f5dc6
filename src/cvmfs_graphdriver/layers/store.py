"""Layers on disk: which exist, their parents and their kinds.

Owns: the directory ``<home>`` of a graph driver, where all state is on disk:

    <home>/<id>/diff/     the layer's own files, in overlayfs' form
    <home>/<id>/work/     overlayfs' work directory
    <home>/<id>/merged/   the mount point of the layer and those below it; absent while it is not mounted
    <home>/<id>/parent    a symbolic link to the layer below; absent for a base layer
    <home>/<id>/filling   present while the layer is being filled
    <home>/<id>/complete  present once the layer does not change any more
    <home>/<id>/container present if the layer belongs to a container rather than to an image
    <home>/<id>/thin.json present for a thin layer: the layers in repositories that it stands for
    <home>/.new-*         a layer that is being created or removed; garbage after a crash

A layer appears by a rename to its id and disappears by a rename away from it. A layer that was being filled
when its process was killed is garbage too: the sender has to start again. Must not know: mounts, protocols.
"""

import errno
import logging
import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.kernel.whole_file import write_whole_file
from cvmfs_graphdriver.layers.errors import LayerStateError, NoSuchLayerError
from cvmfs_graphdriver.layers.remove import remove_directory
from cvmfs_graphdriver.oci.image.thin import ThinImage

__all__ = ["LayerStore", "StoredLayer", "check_identity"]

_log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_NEW = ".new-"
_DEPTH_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One layer's directory."""

    id: str
    directory: Path

    @property
    def diff(self) -> Path:
        return self.directory / "diff"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def merged(self) -> Path:
        return self.directory / "merged"

    @property
    def parent(self) -> str | None:
        """The id of the layer below."""
        try:
            # A link, since a power failure cannot leave it empty, unlike a file.
            return os.readlink(self.directory / "parent").rpartition("/")[2]
        except FileNotFoundError:
            return None

    @property
    def is_complete(self) -> bool:
        """Whether the layer must not be written to any more."""
        return (self.directory / "complete").exists()

    @property
    def is_container(self) -> bool:
        """Whether the layer belongs to a container; it becomes an image's layer only as a copy."""
        return (self.directory / "container").exists()

    @property
    def is_half_filled(self) -> bool:
        """Whether filling the layer has begun, but not ended."""
        return (self.directory / "filling").exists()

    @property
    def thin(self) -> ThinImage | None:
        """The descriptor of a thin layer; None for a normal one."""
        try:
            with open(self.directory / "thin.json", "rb") as file:
                return ThinImage.read(file)
        except FileNotFoundError:
            return None

    def begin_filling(self) -> None:
        """Mark the beginning of filling. Raises LayerStateError: the layer is complete."""
        if self.is_complete:
            raise LayerStateError(f"the layer {self.id} is already complete")
        (self.directory / "filling").touch()

    def end_filling(self, thin: ThinImage | None) -> None:
        """Mark the end of filling; ``thin`` is the descriptor of a thin layer."""
        if thin is not None:
            write_whole_file(self.directory / "thin.json", thin.dump(), durable=True)
        (self.directory / "filling").rename(self.directory / "complete")

    def complete(self) -> None:
        """Mark the layer as complete."""
        (self.directory / "complete").touch()


class LayerStore:
    """All layers below ``home``; ``owner`` (user, group) owns their directories."""

    def __init__(self, home: Path, owner: tuple[int, int] = (0, 0)) -> None:
        self.home = home
        self._owner = owner

    def prepare(self) -> None:
        """Create the directory if it does not exist."""
        self.home.mkdir(mode=0o710, parents=True, exist_ok=True)
        os.chown(self.home, 0, self._owner[1])

    def clean(self) -> None:
        """Remove layers that an earlier process left half created, half filled or half removed."""
        for entry in list(os.scandir(self.home)):
            if entry.name.startswith(_NEW):
                _remove_tree(Path(entry.path))
            elif StoredLayer(entry.name, Path(entry.path)).is_half_filled:
                _log.warning("removing the layer %s, which was left half filled", entry.name)
                self.remove(entry.name)

    def identities(self) -> list[str]:
        """The ids of all layers."""
        return [name for name in os.listdir(self.home) if self.exists(name)]

    def exists(self, identity: str) -> bool:
        return _ID.fullmatch(identity) is not None and (self.home / identity / "diff").is_dir()

    def get(self, identity: str) -> StoredLayer:
        """Raises NoSuchLayerError."""
        if not self.exists(identity):
            raise NoSuchLayerError(
                f"the layer {identity[:80]!r} is not on this disk. If the plugin was removed and installed "
                "again, Docker still lists the layers that went with it: stop Docker, remove the list "
                f"(rm -r /var/lib/docker/image/{self.home.name}), start Docker, and pull the images again. "
                "Otherwise remove the image (docker rmi --force) and pull it again"
            )
        return StoredLayer(identity, self.home / identity)

    def ancestry(self, identity: str) -> list[StoredLayer]:
        """The layer and all below it, from the top to the base. Raises NoSuchLayerError, LayerStateError."""
        found = [self.get(identity)]
        while (parent := found[-1].parent) is not None:
            found.append(self.get(parent))
            if len(found) > _DEPTH_LIMIT:
                raise LayerStateError(f"the layers below {identity} form a circle: {self.home} is damaged")
        return found

    def create(self, identity: str, parent: str | None, *, container: bool = False) -> StoredLayer:
        """Create an empty layer above ``parent``, which is complete from now on.

        Raises LayerStateError, NoSuchLayerError.
        """
        check_identity(identity)
        below = self.get(parent) if parent else None
        new = self.home / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(mode=0o710)
            os.chown(new, 0, self._owner[1])
            for name, mode in (("diff", 0o755), ("work", 0o700)):
                (new / name).mkdir()
                (new / name).chmod(mode)
                os.chown(new / name, *self._owner)
            if container:
                (new / "container").touch()
            if below is not None:
                (new / "parent").symlink_to(f"../{below.id}")
                below.complete()
            new.rename(self.home / identity)
        except OSError as error:
            with suppress(OSError):
                shutil.rmtree(new)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise LayerStateError(f"the layer {identity} already exists") from error
            raise LayerStateError(
                f"cannot create the layer {identity} in {self.home}: {error.strerror}"
            ) from error
        return StoredLayer(identity, self.home / identity)

    def remove(self, identity: str) -> None:
        """Remove a layer that is not mounted; does nothing if it does not exist."""
        check_identity(identity)
        gone = self.home / f"{_NEW}{secrets.token_hex(8)}"
        try:
            (self.home / identity).rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LayerStateError(f"cannot remove the layer {identity}: {error.strerror}") from error
        _remove_tree(gone)


def check_identity(identity: str) -> str:
    """Return the id if it is valid as the name of a directory. Raises LayerStateError."""
    if not _ID.fullmatch(identity):
        raise LayerStateError(f"{identity[:80]!r} is not a valid layer id")
    return identity


def _remove_tree(path: Path) -> None:
    """Remove a directory recursively; what cannot be removed remains for the next start."""
    problems: list[OSError] = []
    home = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_directory(home, os.fsencode(path.name), problems.append)
    finally:
        os.close(home)
    if problems:
        _log.warning("cannot remove %s; the next start will try again: %s", path, problems[0])
