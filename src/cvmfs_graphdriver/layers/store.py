"""Layers on disk: which there are, whose child each one is, what kind it is.

Owns: the directory ``<home>`` of a graph driver, in which the state on disk is the only truth:

    <home>/<id>/diff/     what the layer itself holds, in overlayfs' form
    <home>/<id>/work/     overlayfs' work directory
    <home>/<id>/merged/   where the layer with everything below it is mounted
    <home>/<id>/parent    the id of the layer below; absent for a base layer
    <home>/<id>/applied   present once the layer is complete and never changes again
    <home>/<id>/thin.json present for a thin layer: which layers of repositories it stands for
    <home>/.new-*         a layer that is being made or removed; rubbish, once nobody does

A layer appears by a rename to its id and disappears by a rename away from it. Must not know: mounts,
protocols.
"""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.layers.errors import LayerStateError, NoSuchLayerError
from cvmfs_graphdriver.oci.thin import ThinImage

__all__ = ["Layer", "LayerStore"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_NEW = ".new-"
_DEPTH_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's place on disk."""

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
            return (self.directory / "parent").read_text()
        except FileNotFoundError:
            return None

    @property
    def is_applied(self) -> bool:
        """Whether the layer is complete, so that nothing may write to it."""
        return (self.directory / "applied").exists()

    @property
    def thin(self) -> ThinImage | None:
        """What a thin layer stands for; None for a normal one."""
        try:
            return ThinImage.parse((self.directory / "thin.json").read_bytes())
        except FileNotFoundError:
            return None

    def mark_applied(self, thin: ThinImage | None) -> None:
        """Say that the layer is complete, and whether it is a thin one."""
        if thin is not None:
            temporary = self.directory / ".thin.json"
            temporary.write_bytes(thin.dump())
            temporary.rename(self.directory / "thin.json")
        (self.directory / "applied").touch()


class LayerStore:
    """All layers below ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def prepare(self) -> None:
        """Make the directory, and remove what was left half made or half removed."""
        self.home.mkdir(mode=0o710, parents=True, exist_ok=True)
        for entry in os.scandir(self.home):
            if entry.name.startswith(_NEW):
                _remove_tree(Path(entry.path))

    def exists(self, identity: str) -> bool:
        return _ID.fullmatch(identity) is not None and (self.home / identity / "diff").is_dir()

    def get(self, identity: str) -> Layer:
        """Raises NoSuchLayerError."""
        if not self.exists(identity):
            raise NoSuchLayerError(f"there is no layer {identity[:80]!r} in {self.home}")
        return Layer(identity, self.home / identity)

    def layers(self) -> Iterator[Layer]:
        """All of them."""
        for entry in sorted(os.scandir(self.home), key=lambda e: e.name):
            if self.exists(entry.name):
                yield Layer(entry.name, Path(entry.path))

    def ancestry(self, identity: str) -> list[Layer]:
        """The layer and all below it, from the top to the base. Raises NoSuchLayerError, LayerStateError."""
        found = [self.get(identity)]
        while (parent := found[-1].parent) is not None:
            found.append(self.get(parent))
            if len(found) > _DEPTH_LIMIT:
                raise LayerStateError(f"the layers below {identity} do not end: {self.home} is damaged")
        return found

    def create(self, identity: str, parent: str | None, *, owner: tuple[int, int] = (0, 0)) -> Layer:
        """Make an empty layer above ``parent``. Raises LayerStateError, NoSuchLayerError."""
        if not _ID.fullmatch(identity):
            raise LayerStateError(f"{identity[:80]!r} cannot be the id of a layer")
        if parent:
            self.get(parent)
        new = self.home / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(mode=0o710)
            for name, mode in (("diff", 0o755), ("work", 0o700), ("merged", 0o700)):
                (new / name).mkdir()
                (new / name).chmod(mode)
                os.chown(new / name, *owner)
            if parent:
                (new / "parent").write_text(parent)
                self._inherit_root(self.get(parent), new / "diff")
            new.rename(self.home / identity)
        except OSError as error:
            with suppress(OSError):
                shutil.rmtree(new)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise LayerStateError(f"the layer {identity} exists already") from error
            raise LayerStateError(
                f"cannot make the layer {identity} in {self.home}: {error.strerror}"
            ) from error
        return Layer(identity, self.home / identity)

    @staticmethod
    def _inherit_root(parent: Layer, diff: Path) -> None:
        """Give a new layer's root directory the attributes of the one below, as nothing has changed it."""
        status = os.stat(parent.diff)
        os.chown(diff, status.st_uid, status.st_gid)
        diff.chmod(stat.S_IMODE(status.st_mode))
        os.utime(diff, ns=(status.st_atime_ns, status.st_mtime_ns))

    def remove(self, identity: str) -> None:
        """Remove a layer that is not mounted; one that is not there is removed already."""
        if not _ID.fullmatch(identity):
            raise LayerStateError(f"{identity[:80]!r} cannot be the id of a layer")
        gone = self.home / f"{_NEW}{secrets.token_hex(8)}"
        try:
            (self.home / identity).rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LayerStateError(f"cannot remove the layer {identity}: {error.strerror}") from error
        _remove_tree(gone)


def _remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, never following a link nor entering a mount."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise LayerStateError(
            f"cannot remove {error.filename or path}: {error.strerror}; it is removed at the next start"
        ) from error
