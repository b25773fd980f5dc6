"""Layers in and out: what apply unpacks, diff packs, with GNU tar and Docker's rules as oracles."""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel.overlay import OPAQUE_XATTR
from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.changes import ChangeKind, changes, size_of
from cvmfs_graphdriver.layers.diff import write_diff
from cvmfs_graphdriver.layers.errors import ApplyError

pytestmark = pytest.mark.root


def listing(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a directory, but for times of directories."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    base = os.fsencode(root)
    for directory, directories, files in os.walk(base):
        for name in sorted((*directories, *files)):
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
            first = inodes.setdefault(status.st_ino, path[len(base) :])
            xattrs = {
                n: os.getxattr(path, n, follow_symlinks=False)
                for n in os.listxattr(path, follow_symlinks=False)
            }
            time = None if kind == stat.S_IFDIR else status.st_mtime
            found[path[len(base) :]] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                time,
                content,
                first,
                xattrs,
            )
    return found


def pack(root: Path) -> bytes:
    out = io.BytesIO()
    write_diff(root, out)
    return out.getvalue()


def make_tree(root: Path) -> None:
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


def test_a_tree_goes_out_and_comes_in(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    size, thin = apply_layer(io.BytesIO(pack(source)), target)
    assert thin is None
    assert size == 7000
    assert listing(target) == listing(source)


def test_gnu_tar_unpacks_what_diff_packs(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    command = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(target)]
    subprocess.run(command, input=pack(source), check=True)
    assert listing(target) == listing(source)


def test_apply_unpacks_what_gnu_tar_packs(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    with open(source / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    os.utime(source / "dir/file", ns=(1, 1_600_000_000_123_456_789))
    command = [
        "tar",
        "--create",
        "--format=posix",
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
        "-C",
        str(source),
        ".",
    ]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    apply_layer(io.BytesIO(packed), target)
    assert listing(target) == listing(source)


def test_whiteouts_take_overlays_form_and_come_back(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("d/.wh..wh..opq", tarfile.REGTYPE),
            (".wh.gone", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    apply_layer(io.BytesIO(out.getvalue()), layer)
    status = os.lstat(layer / "gone")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert os.getxattr(layer / "d", OPAQUE_XATTR) == b"y"
    with tarfile.open(fileobj=io.BytesIO(pack(layer))) as tar:
        assert [member.name for member in tar] == ["d", "d/.wh..wh..opq", ".wh.gone"]


def test_attributes_that_overlayfs_would_obey_are_escaped(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    info = tarfile.TarInfo("d")
    info.type = tarfile.DIRTYPE
    info.pax_headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    apply_layer(io.BytesIO(out.getvalue()), layer)
    assert sorted(os.listxattr(layer / "d")) == [
        "trusted.overlay.overlay.opaque",
        "trusted.overlay.overlay.redirect",
    ]


def test_later_entries_replace_earlier_ones(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content in (
            ("a/", tarfile.DIRTYPE, b""),
            ("a/b", tarfile.REGTYPE, b"1"),
            ("a", tarfile.REGTYPE, b"22"),
            ("c", tarfile.REGTYPE, b"3"),
            ("c/d", tarfile.REGTYPE, b"4"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(ApplyError):  # a file where a directory must be is not removed for a stray child
        apply_layer(io.BytesIO(out.getvalue()), layer)
    assert (layer / "a").read_bytes() == b"22"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    try:
        (disk / "diff").mkdir()
        info = tarfile.TarInfo("big")
        info.size = 1 << 20
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
        with pytest.raises(ApplyError, match="no space left"):
            apply_layer(io.BytesIO(out.getvalue()), disk / "diff")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_changes_follow_dockers_rules(tmp_path: Path) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    for layer in (base, top):
        (layer / "d/e").mkdir(parents=True)
    (base / "d/f").touch()
    (base / "kept").mkdir()
    for path in ("d", "d/e"):
        status = os.stat(base / path)
        os.utime(top / path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (top / "d/e/new").touch()
    os.mknod(top / "d/f", stat.S_IFCHR, 0)
    status = os.stat(base / "d")
    os.utime(top / "d", ns=(status.st_atime_ns, status.st_mtime_ns))
    found = {change.path: change.kind for change in changes(top, [base])}
    assert found == {
        b"/d": ChangeKind.MODIFIED,
        b"/d/e": ChangeKind.MODIFIED,
        b"/d/e/new": ChangeKind.ADDED,
        b"/d/f": ChangeKind.DELETED,
    }
    # What an upper layer hides, a lower one does not bring back.
    middle = tmp_path / "middle"
    (middle / "d").mkdir(parents=True)
    os.setxattr(middle / "d", OPAQUE_XATTR, b"y")
    assert {c.path: c.kind for c in changes(top, [middle, base])}[b"/d/e"] is ChangeKind.ADDED


def test_size_counts_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(1000))
    before = size_of(tmp_path)
    os.link(tmp_path / "one", tmp_path / "two")
    assert size_of(tmp_path) == before == 1000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_stream_gives_nothing_but_our_error(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    make_tree(source)
    data = bytearray(pack(source))
    for at, value in damage:
        data[at % len(data)] = value
    try:
        apply_layer(io.BytesIO(data), target)
    except ApplyError:
        return
