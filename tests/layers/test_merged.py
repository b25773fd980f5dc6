"""Layers looked at without mounting them, against overlayfs itself."""

import os
import stat
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.overlay import OPAQUE_XATTR
from cvmfs_graphdriver.layers.directories import Directories
from cvmfs_graphdriver.layers.merged import Merged, is_opaque
from tests.support.trees import directories, overlay

pytestmark = pytest.mark.root


def tree(view: Merged, opened: Directories) -> dict[bytes, int]:
    found = {}
    for name in view.names(opened):
        entry = view.child(name, opened)
        if entry is not None:
            found[b"/" + name] = entry.status.st_ino
            found |= {b"/" + name + path: inode for path, inode in tree(entry.below, opened).items()}
    return found


def mounted_tree(root: Path) -> set[bytes]:
    base = os.fsencode(root)
    return {
        os.path.join(directory, name).removeprefix(base)
        for directory, names, files in os.walk(base)
        for name in (*names, *files)
    }


def test_it_shows_what_overlayfs_shows(tmp_path: Path) -> None:
    top, middle, base = directories(tmp_path, "top", "middle", "base")
    for layer in (top, middle, base):
        (layer / "d/sub").mkdir(parents=True)
        (layer / f"d/sub/{layer.name}").touch()
        (layer / "opaque").mkdir()
        (layer / f"opaque/{layer.name}").touch()
        (layer / "same").touch()
    os.setxattr(middle / "opaque", OPAQUE_XATTR, b"y")
    (base / "gone").mkdir()
    (base / "gone/file").touch()
    os.mknod(middle / "gone", stat.S_IFCHR, 0)
    # A file between two directories hides the lower one.
    (top / "mixed").mkdir()
    (middle / "mixed").touch()
    (base / "mixed").mkdir()
    (base / "mixed/hidden").touch()
    # Something new where something was deleted.
    (top / "gone").mkdir()
    (top / "gone/new").touch()
    view = Merged(os.fsencode(layer) for layer in (top, middle, base))
    with overlay(tmp_path, [top, middle, base]) as root, Directories() as opened:
        assert tree(view, opened).keys() == mounted_tree(root)
        same, below = view.child(b"same", opened), view.child(b"opaque", opened)
        assert view.child(b"absent", opened) is None
    assert same is not None
    assert same.place == (os.fsencode(top), b"same")
    assert below is not None
    assert below.below.parts == ((os.fsencode(top), b"opaque"), (os.fsencode(middle), b"opaque"))


def test_what_two_stacks_share_is_their_bottom() -> None:
    new, old = Merged([b"/c", b"/b", b"/a"]), Merged([b"/x", b"/a"])
    assert [part.root for part in new.beyond(old).parts] == [b"/c", b"/b"]
    assert [part.root for part in old.beyond(new).parts] == [b"/x"]
    assert new.beyond(new).parts == ()
    assert new.beyond(Merged()).parts == new.parts


def test_only_y_says_opaque(tmp_path: Path) -> None:
    os.setxattr(tmp_path, OPAQUE_XATTR, b"x")
    assert not is_opaque(os.fsencode(tmp_path), follow=False)
    os.setxattr(tmp_path, OPAQUE_XATTR, b"y")
    assert is_opaque(os.fsencode(tmp_path), follow=False)
