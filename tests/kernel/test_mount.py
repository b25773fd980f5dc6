"""Mounting by the old call and by the new ones."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import (
    FilesystemContext,
    MountAttribute,
    MountFlag,
    UmountFlag,
    bind,
    clone_tree,
    mount,
    move_mount,
    umount,
)
from cvmfs_graphdriver.kernel.mountinfo import mount_at

pytestmark = pytest.mark.root


@contextmanager
def unmounted(*places: Path) -> Iterator[None]:
    """Whatever happens, nothing stays mounted."""
    try:
        yield
    finally:
        for place in places:
            while mount_at(place):
                umount(place, UmountFlag.DETACH)


def test_mount_bind_umount(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with unmounted(there, here):
        mount("tmpfs", here, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, b"size=64k,mode=0711")
        assert os.lstat(here).st_mode & 0o777 == 0o711
        assert os.statvfs(here).f_flag & os.ST_NOSUID
        (here / "file").write_bytes(b"x")
        bind(here, there)
        assert (there / "file").read_bytes() == b"x"
        with (there / "file").open("rb"), pytest.raises(MountError) as caught:
            umount(there)
        assert caught.value.errno == errno.EBUSY
        umount(there)
        umount(here)
        assert not (here / "file").exists()


def test_errors_name_place_and_reason(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"no-such-fs.*No such device") as caught:
        mount("x", tmp_path, "no-such-fs")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(MountError, match="cannot unmount"):
        umount(tmp_path)
    with pytest.raises(MountError, match="one page"):
        mount("x", tmp_path, "tmpfs", data=b"x" * 4096)


def test_a_context_makes_a_detached_mount(tmp_path: Path) -> None:
    with unmounted(tmp_path):
        with FilesystemContext("tmpfs") as context:
            context.set_string("mode", "0700")
            detached = context.create(MountAttribute.READ_ONLY)
        assert mount_at(tmp_path) is None
        move_mount(detached, tmp_path)
        os.close(detached)
        assert os.statvfs(tmp_path).f_flag & os.ST_RDONLY


def test_a_context_tells_the_kernels_reason() -> None:
    with FilesystemContext("overlay") as context:
        with pytest.raises(MountError, match="nonsense") as caught:
            context.set_flag("nonsense")
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(MountError) as unknown:
        FilesystemContext("no-such-fs")
    assert unknown.value.errno == errno.ENODEV


def test_a_clone_outlives_the_original(tmp_path: Path) -> None:
    with unmounted(tmp_path):
        mount("tmpfs", tmp_path, "tmpfs")
        (tmp_path / "file").write_bytes(b"still here")
        clone = clone_tree(tmp_path)
        umount(tmp_path)
        descriptor = os.open("file", os.O_RDONLY, dir_fd=clone)
        assert os.read(descriptor, 100) == b"still here"
        os.close(descriptor)
        os.close(clone)
