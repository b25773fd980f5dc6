"""Images on the disk: made once, whole or not there, and not too many."""

import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from cvmfs_graphdriver.planes.erofs.flatten import CatalogAt, LayerTree, flatten
from cvmfs_graphdriver.planes.erofs.images import Images, Made
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry
from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import CatalogError


def content(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def test_an_image_is_made_once(tmp_path: Path) -> None:
    images = Images(tmp_path)
    made: list[bytes] = []

    def make() -> Made:
        made.append(b"x")
        return Made(b"image" * 100, b"notes")

    for _ in range(3):
        assert content(images.open("a", lambda notes: notes == b"notes", make)).startswith(b"image" * 100)
    assert len(made) == 1
    os.close(images.open("a", lambda _: False, make))
    assert len(made) == 2


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Made:
        raise CatalogError("damaged")

    images = Images(tmp_path)
    with pytest.raises(CatalogError):
        images.open("a", lambda _: True, fail)
    assert os.listdir(tmp_path) == []


def test_those_used_last_are_kept(tmp_path: Path) -> None:
    images = Images(tmp_path, room=3500)
    for number, name in enumerate("abcd"):
        os.close(images.open(name, lambda _: True, lambda: Made(bytes(1000), b"")))
        if name == "c":
            os.close(images.open("a", lambda _: True, lambda: pytest.fail("it is there")))
            os.utime(tmp_path / "a.erofs", (50, 50))
        else:
            os.utime(tmp_path / f"{name}.erofs", (number, number))
    os.utime(tmp_path / "c.erofs", (60, 60))
    assert {path.name for path in tmp_path.iterdir()} == {"a.erofs", "c.erofs", "d.erofs"}


class _Hostile:
    """A catalog that lists one name in its root."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def lookup(self, path: bytes) -> DirectoryEntry:
        return DirectoryEntry(path, stat.S_IFDIR | 0o755)

    def listing(self, path: bytes) -> list[DirectoryEntry]:
        del path
        return [DirectoryEntry(self._name, stat.S_IFREG | 0o644)]


@pytest.mark.parametrize("name", [b"a/b", b"..", b".", b"", b"a\0b", b"x" * 256])
def test_names_that_cannot_be_are_refused(name: bytes) -> None:
    at = CatalogAt(Digest(Algorithm.SHA1, bytes(20)), 0, _Hostile(name))  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match="invalid name"):
        flatten([LayerTree("a.org", b"/layer", lambda _: nullcontext(at))])
