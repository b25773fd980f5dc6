"""Layers from a repository, stacked by the kernel."""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at, mounts_below
from cvmfs_graphdriver.kernel.overlay import OPAQUE_XATTR, mount_overlay
from cvmfs_graphdriver.planes.errors import LayerNotFoundError, MountPointError, ServerError
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath, Plane
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from tests.support.entries import directory, file
from tests.support.mounts import end, pids_serving, wait_until
from tests.support.published import FQRN, Published, published

pytestmark = pytest.mark.root

BASE, MIDDLE, TOP, ALONE = (LayerPath(FQRN, b"/layers/" + name) for name in (b"aa", b"bb", b"cc", b"dd"))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    with published(tmp_path / "repository") as repository:
        repository.publish(
            {
                BASE.path: [
                    directory("", 0o711, uid=3, gid=4, mtime=5),
                    directory("/etc"),
                    file("/etc/motd", b"from the base"),
                    file("/etc/passwd", b"base"),
                    directory("/opaque"),
                    file("/opaque/old"),
                    directory("/again"),
                    file("/again/old"),
                    file("/gone", b"x"),
                    directory("/goes"),
                    file("/goes/with/it"),
                    file("/.wh.", b"says nothing"),
                    file("/.wh..wh.plnk", b"says nothing"),
                ],
                MIDDLE.path: [
                    file("/etc/.wh.motd"),
                    file("/etc/passwd", b"middle", 0o4755),
                    directory("/opaque"),
                    file("/opaque/.wh..wh..opq"),
                    file("/opaque/new"),
                    file("/.wh.again"),
                    directory("/again"),
                    file("/again/new"),
                    file("/.wh.gone"),
                    file("/.wh.goes"),
                    file("/own", b"", xattrs={b"trusted.overlay.opaque": b"mine", b"user.a": b"b"}),
                    (TreeEntry(b"/device", stat.S_IFCHR | 0o600, rdev=os.makedev(5, 1)), None),
                ],
                TOP.path: [file("/etc/motd", b"from the top"), file("/goes", b"now a file")],
                ALONE.path: [file("/.wh..wh..opq"), file("/only", b"this")],
            }
        )
        yield repository


@pytest.fixture
def plane(repository: Published, tmp_path: Path) -> Iterator[Plane]:
    home = tmp_path / "home"
    yield FusePlane(home, repository.etc, {"CVMFS_QUOTA_LIMIT": "-1"})
    for mount in reversed(mounts_below(home)):
        umount(mount.mount_point, UmountFlag.DETACH)
    end(home / FQRN)


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "merged"
    place.mkdir()
    yield place
    while mount_at(place):
        umount(place, UmountFlag.DETACH)


def stack(plane: Plane, layers: list[LayerPath], merged: Path, upper: Path | None = None) -> None:
    work = None
    if upper:
        upper.mkdir()
        work = upper.with_name("work")
        work.mkdir()
    with plane.lower(layers) as lower:
        mount_overlay(lower.layers, merged, upper=upper, work=work, data=lower.data, options=lower.options)


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_whiteouts_and_opaque_directories(plane: Plane, merged: Path, tmp_path: Path) -> None:
    stack(plane, [TOP, MIDDLE, BASE], merged, tmp_path / "upper")
    assert tree(merged) == {
        *("etc", "etc/motd", "etc/passwd", "opaque", "opaque/new", "again", "again/new"),
        *("goes", "own", "device"),
    }
    assert (merged / "etc/motd").read_bytes() == b"from the top"
    assert (merged / "etc/passwd").read_bytes() == b"middle"
    assert os.lstat(merged / "etc/passwd").st_mode & 0o7777 == 0o4755
    assert (merged / "goes").read_bytes() == b"now a file"
    assert os.lstat(merged / "device").st_rdev == os.makedev(5, 1)
    assert sorted(os.listxattr(merged / "own")) == ["trusted.overlay.opaque", "user.a"]
    assert os.getxattr(merged / "own", "trusted.overlay.opaque") == b"mine"


def test_what_is_written_over_it(plane: Plane, merged: Path, tmp_path: Path) -> None:
    """Copying up takes content and attributes along, and no trace of ours."""
    upper = tmp_path / "upper"
    stack(plane, [MIDDLE, BASE], merged, upper)
    (merged / "own").chmod(0o600)
    (merged / "opaque/new").write_bytes(b"more")
    (merged / "etc/passwd").unlink()
    assert sorted(name for name in os.listxattr(upper / "own") if "overlay" not in name) == ["user.a"]
    assert "etc/passwd" not in tree(merged)
    assert tree(merged / "opaque") == {"new"}


def test_one_layer_alone(plane: Plane, merged: Path) -> None:
    stack(plane, [BASE], merged)
    assert "etc/motd" in tree(merged)
    status = os.lstat(merged)
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o711, 3, 4)
    assert not {name for name in tree(merged) if ".wh." in name}


def test_an_opaque_root_hides_all_layers_below(plane: Plane, merged: Path) -> None:
    stack(plane, [TOP, ALONE, BASE], merged)
    assert tree(merged) == {"only", "etc", "etc/motd", "goes"}


def test_a_layers_own_tree_has_overlays_form(plane: Plane) -> None:
    own = plane.repository(MIDDLE) / os.fsdecode(MIDDLE.path[1:])
    assert set(os.listdir(own)) == {"etc", "opaque", "again", "gone", "goes", "own", "device"}
    for name in ("gone", "goes", "etc/motd"):
        status = os.lstat(own / name)
        assert stat.S_ISCHR(status.st_mode)
        assert (status.st_rdev, status.st_nlink, status.st_size) == (0, 1, 0)
    assert os.listdir(own / "opaque") == ["new"]
    assert os.getxattr(own / "opaque", OPAQUE_XATTR) == b"y"
    assert os.getxattr(own / "again", OPAQUE_XATTR) == b"y"
    assert OPAQUE_XATTR.decode() not in os.listxattr(own / "etc")
    assert not (own / ".wh.gone").exists()
    with pytest.raises(FileNotFoundError):
        os.lstat(own / "etc/.wh.motd")


def test_whiteouts_are_found_again_by_a_new_server(plane: Plane) -> None:
    own = plane.repository(MIDDLE) / os.fsdecode(MIDDLE.path[1:])
    before = {name: os.lstat(own / name) for name in os.listdir(own)}
    mount = own.parent.parent
    keeper, server = pids_serving(mount)
    os.kill(server, signal.SIGKILL)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    assert {name: os.lstat(own / name) for name in os.listdir(own)} == before
    assert pids_serving(mount)[0] == keeper


def test_a_layer_published_later_is_found(plane: Plane, repository: Published) -> None:
    later = LayerPath(FQRN, b"/layers/ee")
    with pytest.raises(LayerNotFoundError, match="/layers/ee"):
        plane.repository(later)
    mount = plane.repository(BASE)
    serving = pids_serving(mount)
    repository.publish({later.path: [file("/new", b"new")]})
    assert (plane.repository(later) / os.fsdecode(later.path[1:]) / "new").read_bytes() == b"new"
    assert pids_serving(mount) == serving, "it was asked, not mounted again"


def test_who_waits_for_a_mount_that_fails_does_not_try_again(plane: Plane, repository: Published) -> None:
    (repository.etc.parent / "www" / "cvmfs" / FQRN / ".cvmfspublished").unlink()
    asked = repository.served.requests
    start = threading.Barrier(8)

    def look(_: int) -> None:
        start.wait()
        with pytest.raises(ServerError, match="no server has the repository"):
            plane.repository(BASE)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(look, range(8)))
    assert repository.served.requests == asked + 1


def test_dead_mounts_are_replaced(plane: Plane) -> None:
    mount = plane.repository(BASE)
    for pid in pids_serving(mount):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not pids_serving(mount))
    assert (plane.repository(BASE) / os.fsdecode(BASE.path[1:]) / "etc/motd").read_bytes() == b"from the base"


def test_release(plane: Plane, merged: Path, tmp_path: Path) -> None:
    stack(plane, [MIDDLE, BASE], merged, tmp_path / "upper")
    plane.release(FQRN)
    assert mount_at(tmp_path / "home" / FQRN) is None
    assert (merged / "etc/passwd").read_bytes() == b"middle"
    umount(merged)
    wait_until(lambda: not pids_serving(tmp_path / "home" / FQRN))
    plane.release(FQRN)


@pytest.mark.parametrize(
    "path", [b"/layers/../..", b"/links/link", b"/links/link/etc", b"/layers/aa/etc/passwd", b"/none"]
)
def test_no_path_leaves_the_repository(plane: Plane, repository: Published, path: bytes) -> None:
    link = TreeEntry(b"/link", stat.S_IFLNK | 0o777, symlink=b"/")
    repository.publish({b"/links": [(link, None)]})
    with pytest.raises(LayerNotFoundError):
        plane.repository(LayerPath(FQRN, path))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", ".empty", "-x"])
def test_no_name_leaves_the_home(plane: Plane, name: str) -> None:
    with pytest.raises(MountPointError):
        plane.repository(LayerPath(name, b"/layers"))
