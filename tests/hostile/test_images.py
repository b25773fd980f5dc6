"""Catalogs that describe a tree which no image can hold: refused, and the FUSE plane serves the layers."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.erofs import Directory, Inode, write_image
from cvmfs_graphdriver.kernel.errors import ErofsError
from cvmfs_graphdriver.planes.erofs import flatten as flattening
from cvmfs_graphdriver.planes.erofs.flatten import CatalogAt, LayerTree, flatten
from cvmfs_graphdriver.planes.plane import LayerPath
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError
from tests.planes.test_erofs_plane import driver_home, seen, stacked
from tests.support.entries import directory, file, symlink
from tests.support.published import FQRN, published

_DIRECTORY = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY, linkcount=2)
_MOUNTPOINT = _DIRECTORY._replace(flags=EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT)
LAYER = LayerPath(FQRN, b"/layers/one")


def layer_of(path: Path, *entries: DirectoryEntry) -> LayerTree:
    """A layer in which each nested catalog is the same one again."""
    with CatalogWriter.create(path, mountpoint=b"", now=5) as writer:
        writer.add(b"", _DIRECTORY)
        for entry in entries:
            writer.add(b"/" + entry.name, entry)
        writer.finish()

    @contextmanager
    def catalog(mountpoint: bytes) -> Iterator[CatalogAt]:
        with closing(Catalog.open(path, mountpoint=mountpoint)) as opened:
            yield CatalogAt(Digest.of(b""), 0, opened)

    return LayerTree("hostile.example.org", b"", catalog)


def test_catalogs_bound_into_one_another_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flattening, "DEPTH_LIMIT", 50)
    layer = layer_of(tmp_path / "chain", _MOUNTPOINT._replace(name=b"a"))
    with pytest.raises(FormatError, match="nested too deeply"):
        flatten([layer])


def test_the_number_of_catalogs_is_bounded(tmp_path: Path) -> None:
    names = [b"%d" % number for number in range(20)]
    layer = layer_of(tmp_path / "graph", *(_MOUNTPOINT._replace(name=name) for name in names))
    with pytest.raises(FormatError, match="catalogs"):
        flattening._load(layer, flattening._Limits(catalogs=200))


def test_the_number_of_entries_is_bounded(tmp_path: Path) -> None:
    budget = flattening._Limits(entries=1000)
    names = [b"%d" % number for number in range(20)]
    layer = layer_of(tmp_path / "graph", *(_MOUNTPOINT._replace(name=name) for name in names))
    with pytest.raises(FormatError, match="entries"):
        flattening._load(layer, budget)


@pytest.mark.parametrize("mode", [0, 0o170000, 0o030644, stat.S_IFDIR | 0o755])
def test_an_unknown_file_type_is_refused(mode: int) -> None:
    with pytest.raises(ErofsError, match="no file type"):
        write_image(Directory(children={b"x": Inode(mode)}))


def test_a_directory_of_another_type_is_refused() -> None:
    with pytest.raises(ErofsError, match="directory has the mode"):
        write_image(Directory(stat.S_IFREG | 0o755))


@pytest.mark.root
def test_the_fuse_plane_serves_what_an_image_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flattening, "DEPTH_LIMIT", 1)
    with published(tmp_path / "repository") as stored:
        stored.publish({LAYER.path: [directory("/a"), directory("/a/b"), file("/a/b/c", b"content")]})
        with driver_home(tmp_path / "home", stored.etc) as home:
            with home.plane.lower([LAYER]) as lower:
                assert not lower.data
            with stacked(home.plane, [LAYER], tmp_path / "stack") as merged:
                assert seen(merged).keys() == {b"", b"/a", b"/a/b", b"/a/b/c"}


@pytest.mark.root
def test_symbolic_links_of_images_do_not_show_the_configuration(tmp_path: Path) -> None:
    """Neither as an image of the EROFS plane nor as a directory of the FUSE plane."""
    with published(tmp_path / "repository") as stored:
        stored.publish({LAYER.path: [symlink("/link", b"$(SECRET)/x"), file("/file", b"y")]})
        with (stored.etc / "default.local").open("a") as local:
            local.write("export SECRET=proxy-password\n")
        with driver_home(tmp_path / "home", stored.etc) as home:
            assert home.plane.name == "erofs"
            with stacked(home.plane, [LAYER], tmp_path / "stack") as merged:
                assert os.readlink(merged / "link") == "$(SECRET)/x"
            assert (
                os.readlink(home.plane.repository(LAYER) / os.fsdecode(LAYER.path[1:]) / "link")
                == "$(SECRET)/x"
            )
