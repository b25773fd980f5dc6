"""The mount table, from examples and from the kernel."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import MountFlag, mount, umount
from cvmfs_graphdriver.kernel.mountinfo import MountEntry, mount_at, parse_mountinfo, read_mountinfo
from tests.support.mutations import generated

LINE = (
    rb"36 35 98:0 /mnt1 /mnt\0402\134x\011y rw,noatime shared:4 master:1 - overlay over\040lay "
    rb"rw,lowerdir=/a\134:b\054c:/d,upperdir=/u"
)


def test_every_field() -> None:
    assert parse_mountinfo(LINE + b"\n") == [
        MountEntry(
            36,
            35,
            (98, 0),
            b"/mnt1",
            b"/mnt 2\\x\ty",
            (b"rw", b"noatime"),
            (b"shared:4", b"master:1"),
            b"overlay",
            b"over lay",
            (b"rw", b"lowerdir=/a\\:b,c:/d", b"upperdir=/u"),
        )
    ]


def test_no_optional_field() -> None:
    assert parse_mountinfo(b"1 0 0:1 / / ro - tmpfs none ro")[0].propagation == ()


@pytest.mark.parametrize("line", [b"", b"nonsense", b"1 2 3 / / rw - x y z", b"1 0 0:1 / / ro tmpfs none ro"])
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(MountError, match="mountinfo"):
        parse_mountinfo(line + b"\n")


@generated
@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(table: bytes) -> None:
    with contextlib.suppress(MountError):
        parse_mountinfo(table)


def test_this_machine_has_a_root() -> None:
    assert any(mount.mount_point == b"/" for mount in read_mountinfo())


@pytest.mark.root
def test_finds_the_topmost_mount_of_an_odd_name(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/a \\040:\xff\n"
    os.mkdir(odd)
    assert mount_at(odd) is None
    mount("first", odd, "tmpfs", MountFlag.NODEV)
    mount("second", odd, "tmpfs", MountFlag.NOSUID)
    try:
        found = mount_at(odd + b"/")
        assert found is not None
        assert (found.source, found.filesystem) == (b"second", b"tmpfs")
        assert b"nosuid" in found.options
    finally:
        umount(odd)
        umount(odd)
    assert mount_at(odd) is None
