"""GNU tar and the standard library's module are the oracles; what no tool makes is made by hand."""

import contextlib
import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.entry import EntryKind, LayerEntry
from cvmfs_graphdriver.oci.layer.tar import TarReader
from tests.support.mutations import generated
from tests.support.tars import tar_of

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)


def _read(archive: bytes, *, most: int = 1 << 20) -> list[tuple[LayerEntry, bytes]]:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, most))

    reader = TarReader("layer x", Dribble(archive))
    return [(entry, b"".join(iter(lambda: reader.read(1000), b""))) for entry in reader]


def _entries(archive: bytes) -> dict[bytes, LayerEntry]:
    return {entry.path: entry for entry, _ in _read(archive)}


def _make_tree(root: Path) -> None:
    """Everything that a file system and GNU tar can hold."""
    base = os.fsencode(root)

    def at(name: bytes) -> bytes:
        return base + b"/" + name

    os.makedirs(at(b"usr/bin"))
    for name, content in (
        (b"usr/bin/tool", b"#!/bin/sh\n"),
        (b"empty", b""),
        (b"block", b"x" * _BLOCK),
        (b"big", os.urandom(700_000)),
        (b"\xff\xfe not utf-8", b"1"),
        (b"new\nline", b"2"),
        (b"d" * 120, b"3"),
        (b".wh.gone", b""),
    ):
        with open(at(name), "wb") as file:
            file.write(content)
    deep = b"long/" + b"/".join([b"component-%d" % number * 8 for number in range(9)])
    os.makedirs(at(deep))
    with open(at(deep + b"/leaf"), "wb") as file:
        file.write(b"leaf")
    os.link(at(deep + b"/leaf"), at(b"hard link far away"))
    os.link(at(b"usr/bin/tool"), at(b"usr/bin/tool-2"))
    os.symlink(b"../" + b"t" * 200, at(b"symlink"))
    os.symlink(b"\xe9", at(b"symlink to latin-1"))
    os.chmod(at(b"usr/bin/tool"), 0o6755)
    os.mkdir(at(b"sticky"))
    os.chmod(at(b"sticky"), 0o1777)
    os.chown(at(b"usr/bin"), 65534, 1000)
    os.chown(at(b"symlink"), 3_000_000, 3_000_001, follow_symlinks=False)
    os.mknod(at(b"null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(at(b"disk"), stat.S_IFBLK | 0o660, os.makedev(259, 1_000_000))
    os.mkfifo(at(b"fifo"))
    os.setxattr(at(b"big"), "user.text", b"value")
    os.setxattr(at(b"big"), "user.binary", bytes(range(256)))
    os.setxattr(at(b"big"), "user.empty", b"")
    os.setxattr(at(b"usr/bin/tool"), "security.capability", _CAPABILITY)
    os.setxattr(at(b"usr"), "trusted.overlay.opaque", b"y")
    for number, name in enumerate((b"empty", b"big", b"usr", b"symlink")):
        time = 1_600_000_000_000_000_000 + number * 111_111_111
        os.utime(at(name), ns=(time, time), follow_symlinks=False)
    os.utime(at(b"block"), ns=(-315_619_200_500_000_000,) * 2)


def _make_sparse(path: Path, pieces: int) -> None:
    with path.open("wb") as file:
        for number in range(pieces):
            file.seek(number * 200_000 + 65_536)
            file.write(bytes([number % 255 + 1]) * 5000)
        file.truncate(pieces * 200_000 + 1_000_003)


def _expected(root: Path, *, nanoseconds: bool, xattrs: bool) -> dict[bytes, tuple[LayerEntry, bytes]]:
    base = os.fsencode(root)
    found: dict[bytes, tuple[LayerEntry, bytes]] = {}
    kinds = {
        stat.S_IFREG: EntryKind.FILE,
        stat.S_IFDIR: EntryKind.DIRECTORY,
        stat.S_IFLNK: EntryKind.SYMLINK,
        stat.S_IFCHR: EntryKind.CHARACTER_DEVICE,
        stat.S_IFBLK: EntryKind.BLOCK_DEVICE,
        stat.S_IFIFO: EntryKind.FIFO,
    }
    paths = [base, *(os.path.join(where, n) for where, ds, fs in os.walk(base) for n in (*ds, *fs))]
    for path in paths:
        info = os.lstat(path)
        kind = kinds[stat.S_IFMT(info.st_mode)]
        seconds, rest = divmod(info.st_mtime_ns, 1_000_000_000)
        content = b""
        if kind is EntryKind.FILE:
            with open(path, "rb") as file:
                content = file.read()
        names = os.listxattr(path, follow_symlinks=False)
        found[path[len(base) :]] = (
            LayerEntry(
                path=path[len(base) :],
                kind=kind,
                mode=stat.S_IMODE(info.st_mode),
                uid=info.st_uid,
                gid=info.st_gid,
                mtime=seconds,
                mtime_ns=rest if nanoseconds else 0,
                size=len(content),
                linkname=os.readlink(path) if kind is EntryKind.SYMLINK else b"",
                device=info.st_rdev,
                xattrs={os.fsencode(n): os.getxattr(path, n, follow_symlinks=False) for n in names}
                if xattrs
                else {},
            ),
            content,
        )
    return found


def _compare(found: list[tuple[LayerEntry, bytes]], expected: dict[bytes, tuple[LayerEntry, bytes]]) -> None:
    seen: dict[bytes, tuple[LayerEntry, bytes]] = {}
    for entry, content in found:
        if entry.kind is EntryKind.HARD_LINK:
            first, data = seen[entry.linkname]
            seen[entry.path] = (first._replace(path=entry.path), data)
        else:
            seen[entry.path] = (entry, content)
    assert seen.keys() == expected.keys()
    for path, (entry, content) in expected.items():
        assert seen[path][0] == entry
        assert hashlib.sha256(seen[path][1]).digest() == hashlib.sha256(content).digest(), path


def _tar(root: Path, *options: str) -> bytes:
    done = subprocess.run(
        ["tar", "-C", str(root), "--create", *options, "."], capture_output=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "nanoseconds", "xattrs"),
    [
        (("--format=gnu",), False, False),
        (("--format=oldgnu", "--numeric-owner"), False, False),
        (("--format=pax",), True, False),
        (("--format=pax", "--xattrs", "--xattrs-include=*", "--sort=name"), True, True),
    ],
    ids=["gnu", "oldgnu", "pax", "pax-xattrs"],
)
def test_what_gnu_tar_writes_is_read(
    tmp_path: Path, options: tuple[str, ...], nanoseconds: bool, xattrs: bool
) -> None:
    tree = tmp_path / "tree"
    _make_tree(tree)
    archive = _tar(tree, *options)
    expected = _expected(tree, nanoseconds=nanoseconds, xattrs=xattrs)
    _compare(_read(archive), expected)
    _compare(_read(archive, most=777), expected)


@pytest.mark.parametrize("pieces", [0, 1, 3, 5, 60])
@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=pax", "--sparse-version=0.0"),
        ("--format=pax", "--sparse-version=0.1"),
        ("--format=pax", "--sparse-version=1.0"),
    ],
    ids=["old", "0.0", "0.1", "1.0"],
)
def test_files_with_holes_are_whole(tmp_path: Path, options: tuple[str, ...], pieces: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    _make_sparse(tree / "sparse", pieces)
    (tree / "sparse-2").write_bytes(b"next")
    archive = _tar(tree, "--sparse", "--sort=name", *options)
    assert len(archive) < (tree / "sparse").stat().st_size / 2
    for most in (777, 1 << 20):
        found = {entry.path: (entry, content) for entry, content in _read(archive, most=most)}
        entry, content = found[b"/sparse"]
        assert entry.size == len(content)
        assert content == (tree / "sparse").read_bytes()
        assert found[b"/sparse-2"][1] == b"next"


def _member(name: str, **members: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in members.items():
        setattr(member, key, value)
    return member


def test_libarchives_attributes_are_read_too() -> None:
    member = _member(
        "a", pax_headers={"LIBARCHIVE.xattr.user.a%20b": "AQID", "LIBARCHIVE.xattr.user.c": "eA=="}
    )
    assert _entries(tar_of({"a": member}))[b"/a"].xattrs == {b"user.a b": b"\1\2\3", b"user.c": b"x"}


def test_schily_wins_over_libarchive() -> None:
    member = _member("a", pax_headers={"LIBARCHIVE.xattr.user.c": "eA==", "SCHILY.xattr.user.c": "y"})
    assert _entries(tar_of({"a": member}))[b"/a"].xattrs == {b"user.c": b"y"}


def test_global_headers_are_skipped_as_docker_skips_them() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77"}
    ) as archive:
        archive.addfile(_member("a"))
    assert buffer.getvalue()[156:157] == b"g"
    assert _entries(buffer.getvalue())[b"/a"].uid == 0


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./a", b"/a"),
        ("/a", b"/a"),
        ("a//b/", b"/a/b"),
        (".", b""),
        ("././a/./b", b"/a/b"),
        ("//etc", b"/etc"),
    ],
)
def test_names_lose_what_means_nothing(name: str, path: bytes) -> None:
    (entry,) = (entry for entry, _ in _read(tar_of({name: _member(name, type=tarfile.DIRTYPE)})))
    assert entry.path == path


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (_member("../a"), "leads out"),
        (_member("a/../../b"), "leads out"),
        (_member("/.."), "leads out"),
        (_member("a/.."), "leads out"),
        (_member("x" * 256), "longer than Linux"),
        (_member("x/" * 3000), "longer than Linux"),
        (_member("."), "the root of the layer is a file"),
        (_member("", type=tarfile.SYMTYPE, linkname="/etc"), "the root of the layer is a symbolic link"),
        (_member("a", type=tarfile.LNKTYPE, linkname="../../etc/shadow"), "leads out"),
        (_member("a", type=tarfile.LNKTYPE, linkname="/"), "root of the layer"),
        (_member("a", type=tarfile.SYMTYPE, linkname=""), "symbolic link that Linux"),
        (_member("a", type=tarfile.SYMTYPE, linkname="x" * 5000), "symbolic link that Linux"),
        (_member("a", type=b"V"), "unknown kind"),
        (_member("a", type=b"Z"), "unknown kind"),
        (_member("a", pax_headers={"path": "a\0b"}), "contains a NUL"),
        (_member("a", pax_headers={"size": "-1"}), "not a number"),
        (_member("a", pax_headers={"uid": "4294967295"}), "owner"),
        (_member("a", pax_headers={"mtime": "yesterday"}), "not a time"),
        (_member("a", pax_headers={"mtime": "9" * 17}), "not a time"),
        (_member("a", pax_headers={"SCHILY.xattr.user.x": "x" * 65_537}), "Linux cannot hold"),
        (_member("a", pax_headers={"SCHILY.xattr." + "u" * 256: "x"}), "Linux cannot hold"),
        (_member("a", pax_headers={"SCHILY.xattr.": "x"}), "Linux cannot hold"),
        (_member("a", pax_headers={"LIBARCHIVE.xattr.user.x": "A"}), "damaged"),
        (_member("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"}), "shorter than"),
        (_member("a", pax_headers={"GNU.sparse.map": "5,1", "GNU.sparse.size": "9"}), "does not fit"),
        (_member("a", pax_headers={"GNU.sparse.map": "5,0,3,0", "GNU.sparse.size": "9"}), "not in order"),
        (_member("a", pax_headers={"GNU.sparse.map": "5", "GNU.sparse.size": "9"}), "damaged"),
        (_member("a", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 42)}), "TiB"),
        (_member("a", pax_headers={"k" * 1000: "v" * 1_100_000}), "extended header claims"),
    ],
)
def test_what_no_layer_should_hold_is_refused(member: tarfile.TarInfo, reason: str) -> None:
    with pytest.raises(LayerFormatError, match=f"layer x: .*{reason}"):
        _read(tar_of({member.name: member}))


def _with_checksum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def test_the_devices_of_other_systems_are_refused() -> None:
    header = _member("a", type=tarfile.CHRTYPE, devmajor=0o7777777, devminor=1).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(LayerFormatError, match="device number"):
        _read(header + _END)


def test_a_damaged_header_is_never_the_end() -> None:
    archive = bytearray(tar_of({"a": b"1", "b": b"2"}))
    archive[2 * _BLOCK + 3] ^= 1
    with pytest.raises(LayerFormatError, match=r"checksum.*\(after '/a'\)"):
        _read(bytes(archive))


@pytest.mark.parametrize("field", [b"9999999\0", b"+0000644", b"0x000644", b"0000_644"])
def test_numbers_that_are_none_are_refused(field: bytes) -> None:
    header = _member("a").tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(LayerFormatError, match="not a number"):
        _read(_with_checksum(header[:100] + field + header[108:]) + _END)


def test_an_archive_may_end_without_its_mark_but_not_within_a_member() -> None:
    archive = tar_of({"a": b"x" * 1000, "b": b"2"})
    used = 5 * _BLOCK
    assert [entry.path for entry, _ in _read(archive[:used])] == [b"/a", b"/b"]
    for length in range(1, used):
        if length != 3 * _BLOCK:
            with pytest.raises(LayerFormatError, match="truncated"):
                _read(archive[:length])


def test_an_empty_archive_has_no_entries() -> None:
    assert _read(b"") == _read(_END) == _read(_END + b"whatever follows the end is nobody's") == []


def test_old_archives_mark_directories_by_a_slash() -> None:
    header = bytearray(_member("dir/", mode=0o755).tobuf(tarfile.USTAR_FORMAT))
    header[156:157] = b"\0"
    assert _entries(_with_checksum(bytes(header)) + _END)[b"/dir"].kind is EntryKind.DIRECTORY


def test_links_have_no_content_whatever_their_size_says() -> None:
    header = _member("l", type=tarfile.LNKTYPE, linkname="a").tobuf(tarfile.USTAR_FORMAT)
    header = _with_checksum(header[:124] + b"00000001750\0" + header[136:])
    archive = header + _member("b").tobuf(tarfile.USTAR_FORMAT) + _END
    assert list(_entries(archive)) == [b"/l", b"/b"]


def test_content_that_is_not_read_is_skipped() -> None:
    reader = TarReader("x", io.BytesIO(tar_of({"a": b"x" * 5000, "b": b"y" * 5000})))
    found = {entry.path: reader.read(3) for entry in reader}
    assert found == {b"/a": b"xxx", b"/b": b"yyy"}


_names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60).filter(
        lambda n: n not in {".", ".."}
    ),
    min_size=1,
    max_size=6,
).map("/".join)


@settings(max_examples=150)
@given(
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    members=st.dictionaries(_names, st.binary(max_size=1500), max_size=6),
    uid=st.integers(0, 4_000_000_000),
    mtime=st.integers(-4_000_000_000, 100_000_000_000),
    mode=st.integers(0, 0o7777),
)
def test_the_standard_library_agrees(
    form: int, members: dict[str, bytes], uid: int, mtime: int, mode: int
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for name, content in members.items():
            member = _member(name, uid=uid, mtime=mtime, mode=mode, size=len(content))
            archive.addfile(member, io.BytesIO(content))
    expected = {}
    for name, content in members.items():
        path = b"/" + os.fsencode(name)
        if max(map(len, path.split(b"/"))) > 255:
            return
        expected[path] = (uid, mtime, mode, content)
    found = {e.path: (e.uid, e.mtime, e.mode, content) for e, content in _read(buffer.getvalue())}
    assert found == expected


def _odd_archives() -> Iterator[bytes]:
    yield tar_of({"a" * 150: b"x" * 900, "d": None, "l": _member("l", type=tarfile.SYMTYPE, linkname="a")})
    yield tar_of({"a" * 150: b"x" * 900, "b": b""}, form=tarfile.GNU_FORMAT)
    yield tar_of({"s": _member("s", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "99"})})


@generated
@given(st.sampled_from(list(_odd_archives())), st.data())
def test_damage_anywhere_is_refused_or_harmless(archive: bytes, data: st.DataObject) -> None:
    damaged = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    start = 512 * data.draw(st.integers(0, 3))
    # Repair the checksum, so that what is behind it is reached.
    damaged[start : start + 512] = _with_checksum(bytes(damaged[start : start + 512]))
    with contextlib.suppress(LayerFormatError):
        _read(bytes(damaged))


def test_a_hole_that_fills_all_disks_is_refused() -> None:
    info = tarfile.TarInfo("giant")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "giant",
        "GNU.sparse.realsize": str(1 << 62),
    }
    content = f"1\n{(1 << 62) - 1}\n1\n".encode().ljust(512, b"\0") + b"x"
    info.size = len(content)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    with pytest.raises(LayerFormatError, match="holes in this archive above 1 TiB"):
        list(TarReader("the layer", io.BytesIO(out.getvalue())))
