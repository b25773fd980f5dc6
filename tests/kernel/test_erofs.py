"""The EROFS writer, against the kernel that mounts the image and against fsck.erofs."""

import os
import random
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.erofs import Directory, Inode, write_image
from cvmfs_graphdriver.kernel.errors import ErofsError
from cvmfs_graphdriver.planes.erofs_plane import mount_image
from tests.support.fuzzing import REFUSED, fuzz
from tests.support.mutations import COSTLY_INPUTS, SEED
from tests.support.random_trees import random_forest, spoil

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # VFS_CAP_REVISION_2, CAP_NET_RAW
FILE = stat.S_IFREG | 0o644
TREES = 20
"""In one image of the fuzz test."""
LINK = stat.S_IFLNK | 0o777
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@contextmanager
def mounted(image: bytes | bytearray, place: Path) -> Iterator[Path]:
    """Check the image, mount it, and unmount it in the end."""
    # A name of its own: while another mount name space holds a loop device, its old content would come back.
    file = place / f"image-{time.monotonic_ns()}.erofs"
    file.write_bytes(image)
    subprocess.run(["fsck.erofs", file], check=True, stdout=subprocess.DEVNULL)
    target = place / "mnt"
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", file, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.root
def test_kernel_sees_every_attribute(tmp_path: Path) -> None:
    shared = Inode(stat.S_IFREG | 0o4755, uid=7, gid=8, mtime=1_700_000_000, mtime_ns=123, links=2)
    root = Directory(stat.S_IFDIR | 0o1777, uid=1, gid=2, mtime=5, xattrs={b"user.a": b"b"})
    root.children = {
        b"one": shared,
        b"two": shared,
        b"hole": Inode(FILE, size=10_000),
        b"huge": Inode(FILE, size=5 << 40, xattrs={b"security.capability": CAPABILITY}),
        b"data": Inode(FILE, size=1, redirect=b"/ab/cdef.1", xattrs={b"user.q": b""}),
        b"device": Inode(stat.S_IFCHR | 0o600, rdev=os.makedev(259, 70_000)),
        b"fifo": Inode(stat.S_IFIFO | 0o600),
        b"short": Inode(LINK, target=b"elsewhere"),
        b"long": Inode(LINK, target=b"t" * 4095, xattrs={b"trusted.x": b"y" * 300}),
        b"before 1970": Inode(FILE, mtime=-5),
        b"\xff\n": Directory(xattrs={b"user.big": b"z" * 5000}),
        b"!sorts before the dots": Directory(children={b"child": Inode(FILE)}),
    }
    with mounted(write_image(root), tmp_path) as mnt:
        assert set(os.listdir(os.fsencode(mnt))) == set(root.children)
        top = os.lstat(mnt)
        assert (top.st_mode, top.st_uid, top.st_gid, top.st_mtime_ns) == (root.mode, 1, 2, 5_000_000_000)
        assert top.st_nlink == 4
        assert os.getxattr(mnt, "user.a") == b"b"
        one, two = (os.lstat(mnt / name) for name in ("one", "two"))
        assert one.st_ino == two.st_ino
        assert (one.st_nlink, one.st_mode, one.st_uid, one.st_gid) == (2, shared.mode, 7, 8)
        assert one.st_mtime_ns == 1_700_000_000_000_000_123
        assert (mnt / "hole").read_bytes() == bytes(10_000)
        assert os.lstat(mnt / "huge").st_size == 5 << 40
        assert os.getxattr(mnt / "huge", "security.capability") == CAPABILITY
        assert os.getxattr(mnt / "data", "trusted.overlay.redirect") == b"/ab/cdef.1"
        assert os.getxattr(mnt / "data", "trusted.overlay.metacopy") == b""
        assert os.listxattr(mnt / "hole") == []
        device = os.lstat(mnt / "device")
        assert stat.S_ISCHR(device.st_mode)
        assert device.st_rdev == os.makedev(259, 70_000)
        assert stat.S_ISFIFO(os.lstat(mnt / "fifo").st_mode)
        assert os.readlink(mnt / "short") == "elsewhere"
        assert os.readlink(mnt / "long") == "t" * 4095
        assert os.lstat(mnt / "before 1970").st_mtime == -5
        assert os.getxattr(os.fsencode(mnt) + b"/\xff\n", "user.big") == b"z" * 5000


@pytest.mark.root
def test_directories_of_every_size_list_whole(tmp_path: Path) -> None:
    root = Directory()
    for count in (0, 1, 50, 58, 59, 60, 61, 200, 3000):
        names = {b"%0*d" % (56, number): Inode(FILE) for number in range(count)}
        root.children[b"d%d" % count] = Directory(children=dict(names))
    with mounted(write_image(root), tmp_path) as mnt:
        for name, directory in root.children.items():
            assert isinstance(directory, Directory)
            where = os.fsencode(mnt) + b"/" + name
            assert sorted(os.listdir(where)) == sorted(directory.children)
            assert all(os.lstat(where + b"/" + child).st_size == 0 for child in directory.children)


@contextmanager
def mounted_file(file: Path) -> Iterator[bytes]:
    """A path to the mounted root of an image, which has no place in the file system."""
    with open(file, "rb") as opened:
        descriptor = mount_image(opened.fileno())
    try:
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)


def seen_attributes(path: bytes) -> dict[bytes, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def expected_attributes(child: Inode | Directory) -> dict[bytes, bytes]:
    expected = dict(child.xattrs or {})
    if isinstance(child, Inode) and child.redirect is not None:
        expected |= {b"trusted.overlay.metacopy": b"", b"trusted.overlay.redirect": child.redirect}
    return expected


def compare(tree: Directory, path: bytes, numbers: dict[int, Inode]) -> None:
    """Walk a mounted tree, of any depth; ``numbers`` is whose inode numbers have been seen."""
    with os.scandir(path) as found:
        types = {entry.name: entry for entry in found}
    assert types.keys() == tree.children.keys()
    for name, child in tree.children.items():
        where = path + b"/" + name
        status = os.lstat(where)
        assert (status.st_mode, status.st_uid, status.st_gid) == (child.mode, child.uid, child.gid)
        assert status.st_mtime_ns == child.mtime * 10**9 + child.mtime_ns
        assert seen_attributes(where) == expected_attributes(child)
        assert types[name].is_dir(follow_symlinks=False) == isinstance(child, Directory)
        assert types[name].is_symlink() == stat.S_ISLNK(child.mode)
        if isinstance(child, Directory):
            assert status.st_nlink == 2 + sum(isinstance(one, Directory) for one in child.children.values())
            descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
            try:
                compare(child, b"/proc/self/fd/%d" % descriptor, numbers)
            finally:
                os.close(descriptor)
            continue
        assert numbers.setdefault(status.st_ino, child) is child
        assert status.st_nlink == child.links
        if stat.S_ISLNK(child.mode):
            assert os.readlink(where) == child.target
        elif stat.S_ISREG(child.mode):
            assert status.st_size == child.size
            with open(where, "rb", buffering=0) as file:
                assert file.read(5000) == bytes(min(5000, child.size))
        else:
            assert status.st_rdev == child.rdev


@pytest.mark.root
@pytest.mark.fuzz
def test_any_tree_comes_back(tmp_path: Path) -> None:
    """Many trees in each image, since each image is checked by a process, and mounted."""

    def use(seed: int) -> None:
        chance = random.Random(seed)
        tree = random_forest(chance, TREES)
        if chance.random() < 0.1:
            spoil(tree, chance)
        file = tmp_path / f"{seed}.erofs"
        file.write_bytes(write_image(tree))
        subprocess.run(["fsck.erofs", file], check=True, stdout=subprocess.DEVNULL)
        with mounted_file(file) as root:
            compare(tree, root, {})
        file.unlink()

    images = max(1, COSTLY_INPUTS // TREES)
    assert fuzz(use, range(SEED, SEED + images))[REFUSED] < images * 0.2


def test_the_same_tree_gives_the_same_bytes() -> None:
    def tree() -> Directory:
        return Directory(children={b"a": Inode(FILE, size=3, redirect=b"/aa/bb.3"), b"b": Directory()})

    assert write_image(tree()) == write_image(tree())


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (Inode(LINK, target=b"t" * 4096), "too long"),
        (Inode(FILE, xattrs={b"strange.name": b""}), "unknown namespace"),
        (Inode(FILE, xattrs={b"user.x": bytes(65536)}), "too long"),
        (Inode(FILE, size=(4096 << 31) + 1), "too large"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(child: Inode, message: str) -> None:
    with pytest.raises(ErofsError, match=message):
        write_image(Directory(children={b"x": child}))
