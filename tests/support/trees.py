"""Trees of every kind of entry, and all that can be seen of them."""

import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import umount
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.layers.diff import write_diff
from cvmfs_graphdriver.layers.idmap import Owners

__all__ = ["SAME", "directories", "make_tree", "overlay", "pack", "seen_in"]

SAME = Owners()
"""Containers without user namespaces."""


def seen_in(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a directory, but for times of directories."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    base = os.fsencode(root)
    for directory, names, files in os.walk(base):
        for name in sorted((*names, *files)):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = file.read()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                content = status.st_rdev
            found[path[len(base) :]] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                None if kind == stat.S_IFDIR else status.st_mtime,
                content,
                inodes.setdefault(status.st_ino, path[len(base) :]),
                {
                    n: os.getxattr(path, n, follow_symlinks=False)
                    for n in os.listxattr(path, follow_symlinks=False)
                },
            )
    return found


def pack(root: Path) -> bytes:
    """The tar stream of a layer."""
    out = io.BytesIO()
    write_diff(root, out, SAME)
    return out.getvalue()


def make_tree(root: Path) -> None:
    """One entry of every kind."""
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/file").write_bytes(b"content" * 1000)
    os.link(root / "dir/file", root / "link")
    os.symlink("dir/file", root / "symlink")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "fifo", 0o640)
    with open(os.fsencode(root) + b"/\xff\n", "wb"):
        pass
    (root / ("long" * 60)).touch()
    (root / "suid").touch()
    os.chown(root / "suid", 1234, 3_000_000_000)
    (root / "suid").chmod(0o6755)
    os.setxattr(
        root / "suid", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    os.setxattr(root / "dir", "user.binary", b"\xff\x00\xfe=\n")
    for path in (root / "dir/file", root / "suid", root / "null", root / "fifo", root / ("long" * 60)):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    os.utime(os.fsencode(root) + b"/\xff\n", (1_600_000_000, 1_600_000_000))
    os.utime(root / "symlink", (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def directories(root: Path, *names: str) -> list[Path]:
    """New directories."""
    found = [root / name for name in names]
    for path in found:
        path.mkdir()
    return found


@contextmanager
def overlay(root: Path, lower: list[Path], upper: Path | None = None) -> Iterator[Path]:
    """Layers mounted over one another, topmost first."""
    (root / "merged").mkdir()
    work = None
    if upper is not None:
        work = root / "work"
        work.mkdir()
    mount_overlay(lower, root / "merged", upper=upper, work=work)
    try:
        yield root / "merged"
    finally:
        umount(root / "merged")
        (root / "merged").rmdir()
        if work is not None:
            shutil.rmtree(work)
