"""Images made of repositories that others published, of several of them, and on a disk that is full."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mount import UmountFlag, mount, umount
from cvmfs_graphdriver.planes.erofs_plane import ErofsPlane
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Algorithm
from tests.planes.test_erofs_plane import driver_home, seen, stacked
from tests.support.entries import directory, file
from tests.support.fixtures import serve, unpack
from tests.support.project import require_fixtures
from tests.support.published import FQRN, published

pytestmark = pytest.mark.root

OTHER = "other.example.org"


@pytest.mark.parametrize(
    "fixture", ["lite-sha1-zlib", "lite-sha1-none", "lite-rmd160-zlib", "hardlinks-aufs", "chunked-default"]
)
def test_repositories_of_stock_tools(tmp_path: Path, fixture: str) -> None:
    """Nested catalogs inside of a layer, chunks, every algorithm and form of storage."""
    require_fixtures()
    repository = unpack(fixture, tmp_path / "www")
    with serve(repository.directory) as server:
        settings = repository.settings(server.url, tmp_path, CVMFS_CLAIM_OWNERSHIP="no")
        assert not settings.presentation.claim_ownership
        with driver_home(tmp_path / "home", tmp_path / "etc") as home:
            fuse = FusePlane(home.path / "cvmfs", home.etc, home.overrides)
            assert isinstance(home.plane, ErofsPlane)
            top = fuse.mount_point(repository.fqrn)
            found = [
                os.fsencode(path.name) for path in top.iterdir() if path.is_dir() and path.name[0] != "."
            ]
            assert found
            for name in found:
                layer = LayerPath(repository.fqrn, b"/" + name)
                place = tmp_path / f"stack-{found.index(name)}"
                with (
                    home.plane.lower([layer]) as lower,
                    stacked(home.plane, [layer], place) as by_erofs,
                    stacked(fuse, [layer], place.with_suffix(".fuse")) as by_fuse,
                ):
                    assert lower.data, "not given out as on the FUSE plane"
                    assert seen(by_erofs) == seen(by_fuse)


def test_layers_of_several_repositories(tmp_path: Path) -> None:
    layers = [LayerPath(OTHER, b"/layers/upper"), LayerPath(FQRN, b"/layers/base")]
    options = RepositoryOptions(algorithm=Algorithm.SHAKE128, compression=Compression.NONE)
    with published(tmp_path / "repository") as stored:
        stored.publish(
            {
                b"/layers/base": [
                    directory("/d"),
                    file("/d/a", b"base a"),
                    file("/d/b", b"base b"),
                    file("/same", b"s"),
                ]
            }
        )
        storage = LocalStorage.create(tmp_path / "repository/www/cvmfs" / OTHER)
        other = create_repository(OTHER, storage, tmp_path / "repository/keys", options)
        with Transaction(other) as transaction:
            items = [directory("/d"), file("/d/.wh.a"), file("/d/c", b"other c"), file("/same too", b"s")]
            transaction.ingest(b"/layers/upper", items)
            transaction.publish()
        with (
            driver_home(tmp_path / "home", stored.etc) as home,
            stacked(home.plane, layers, tmp_path / "stack") as merged,
        ):
            contents = {path.name: path.read_bytes() for path in merged.rglob("*") if path.is_file()}
            assert contents == {"b": b"base b", "c": b"other c", "same": b"s", "same too": b"s"}
            home.plane.release(OTHER)
            with stacked(home.plane, layers, tmp_path / "again") as again:
                assert seen(again) == seen(merged)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    mount("tmpfs", place, "tmpfs", data=f"size={size}".encode())
    try:
        yield place
    finally:
        umount(place, UmountFlag.DETACH)


def test_a_full_disk_is_an_error_and_heals(tmp_path: Path) -> None:
    layer = LayerPath(FQRN, b"/layers/one")
    content = os.urandom(3 << 20)
    with published(tmp_path / "repository") as stored, small_disk(tmp_path / "disk", "8m") as disk:
        stored.publish({layer.path: [file("/large", content), file("/small", b"small")]})
        with (
            driver_home(tmp_path / "home", stored.etc, CVMFS_CACHE_BASE=str(disk)) as home,
            stacked(home.plane, [layer], tmp_path / "stack") as merged,
        ):
            assert (merged / "small").read_bytes() == b"small"
            ballast = disk / "ballast"
            room = os.statvfs(disk)
            ballast.write_bytes(bytes(room.f_bavail * room.f_frsize))
            for _ in range(2):
                with pytest.raises(OSError, match="Input/output error") as refused:
                    (merged / "large").read_bytes()
                assert refused.value.errno == errno.EIO
            assert stat.S_ISREG(os.lstat(merged / "large").st_mode)
            ballast.unlink()
            assert (merged / "large").read_bytes() == content
