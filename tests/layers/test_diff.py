"""A layer's directory packed as a tar stream, with GNU tar and our own reader as oracles."""

import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.overlay import OPAQUE_XATTR
from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.diff import write_diff
from cvmfs_graphdriver.layers.errors import UnmappedOwnerError
from cvmfs_graphdriver.layers.idmap import IdMap, IdRange, Owners
from tests.support.tars import tar_of
from tests.support.trees import SAME, directories, make_tree, pack, seen_in

pytestmark = pytest.mark.root


def test_a_tree_goes_out_and_comes_in(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    size, thin = apply_layer(io.BytesIO(pack(source)), target, SAME)
    assert thin is None
    assert size == 7008  # a symbolic link has the size of its target
    assert seen_in(target) == seen_in(source)


def test_gnu_tar_unpacks_what_diff_packs(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    command = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(target)]
    subprocess.run(command, input=pack(source), check=True)
    assert seen_in(target) == seen_in(source)


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
    apply_layer(io.BytesIO(out.getvalue()), layer, SAME)
    status = os.lstat(layer / "gone")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert os.getxattr(layer / "d", OPAQUE_XATTR) == b"y"
    with tarfile.open(fileobj=io.BytesIO(pack(layer))) as tar:
        assert [member.name for member in tar] == ["d", "d/.wh..wh..opq", ".wh.gone"]


def test_headers_are_those_that_docker_writes(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    (layer / "d").mkdir()
    os.chown(layer / "d", 7, 8)
    (layer / "d").chmod(0o2750)
    os.setxattr(layer / "d", OPAQUE_XATTR, b"y")
    os.mknod(layer / "gone", stat.S_IFCHR, 0)
    (layer / "file").touch()
    os.utime(layer / "file", ns=(0, 1_600_000_000_999_999_999))
    for path, value in ((layer / "file", b"x"), (layer / "d", b"y")):
        os.setxattr(path, "trusted.own", value)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(layer / "socket"))
    with tarfile.open(fileobj=io.BytesIO(pack(layer))) as tar:
        found = {m.name: (m.type, m.mode, m.uid, m.gid, m.mtime, m.pax_headers) for m in tar}
    assert found.keys() == {"d", "d/.wh..wh..opq", ".wh.gone", "file"}
    assert found["d"][1:4] == (0o2750, 7, 8)
    assert found["d/.wh..wh..opq"][:4] == (tarfile.REGTYPE, 0o750, 7, 8)
    assert found[".wh.gone"][:4] == (tarfile.REGTYPE, 0o600, 0, 0)
    assert found["file"][4:] == (1_600_000_000, {})  # whole seconds, and nothing of this host's own


def test_owners_are_those_inside_the_namespace(tmp_path: Path) -> None:
    inside = IdMap([IdRange(0, 100_000, 1000)])
    owners = Owners(inside, inside)
    (layer, other) = directories(tmp_path, "layer", "other")
    info = tarfile.TarInfo("file")
    info.uid, info.gid = 33, 999
    apply_layer(io.BytesIO(tar_of(info)), layer, owners)
    status = os.stat(layer / "file")
    assert (status.st_uid, status.st_gid) == (100_033, 100_999)
    out = io.BytesIO()
    write_diff(layer, out, owners)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        (member,) = tar
        assert (member.uid, member.gid) == (33, 999)
    info.uid = 1000
    with pytest.raises(UnmappedOwnerError, match="1000"):
        apply_layer(io.BytesIO(tar_of(info)), other, owners)


def test_a_capability_of_a_namespace_becomes_one_of_any(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    (layer / "ping").touch()
    value = bytes.fromhex("0100000300200000000000000000000000000000a0860100")
    os.setxattr(layer / "ping", "security.capability", value)
    with tarfile.open(fileobj=io.BytesIO(pack(layer))) as tar:
        (member,) = tar
        kept = member.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")
    assert kept == bytes.fromhex("0100000200200000000000000000000000000000")
