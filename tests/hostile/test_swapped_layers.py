"""Layers whose directories become links to the host between a check and a use."""

import os
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.overlay import is_whiteout
from cvmfs_graphdriver.layers import merged as merging
from cvmfs_graphdriver.layers.changes import Change, ChangeKind, changes
from cvmfs_graphdriver.layers.directories import Directories
from cvmfs_graphdriver.layers.merged import Merged
from tests.layers.test_mounts import Case

pytestmark = pytest.mark.root

URL = "cvmfs://a.org/.layers/one"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "secret").touch()
    return directory


@pytest.mark.parametrize("swapped", ["a.org/.layers/one", "a.org/.layers"])
def test_a_new_revision_does_not_lead_to_the_host(tmp_path: Path, host: Path, swapped: str) -> None:
    case = Case(tmp_path)
    case.thin("thin", URL)
    top = case.store.create("top", "thin")
    (top.diff / "own").touch()
    view = case.mounts.view("top")
    place = case.plane.root / swapped
    place.rename(place.with_name("moved"))
    if place.name == ".layers":
        (host / "one").mkdir()
        (host / "one/secret").touch()
    place.symlink_to(host)
    assert changes(view, Merged()) == [Change(b"/own", ChangeKind.ADDED)]


def test_an_attribute_is_not_read_through_a_link(
    tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory becomes a link after its status was read."""
    os.setxattr(host, "trusted.overlay.opaque", b"y")
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for layer in (upper, lower):
        (layer / "d").mkdir(parents=True)
    merged = Merged([os.fsencode(upper), os.fsencode(lower)])
    found = is_whiteout

    def swap(mode: int, rdev: int) -> bool:
        if not os.path.islink(upper / "d"):
            os.rmdir(upper / "d")
            os.symlink(host, upper / "d")
        return found(mode, rdev)

    monkeypatch.setattr(merging, "is_whiteout", swap)
    with Directories() as opened:
        entry = merged.child(b"d", opened)
    assert entry is not None
    assert len(entry.below.parts) == 2
