"""A layer's tar stream unpacked into a directory, with GNU tar and Docker's rules as oracles."""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel.overlay import LAYER_LIMIT
from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.changes import size_of
from cvmfs_graphdriver.layers.errors import ApplyError
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.thin import LayerLocation, ThinImage, ThinLayer
from tests.support.tars import tar_of
from tests.support.trees import SAME, directories, make_tree, overlay, pack, seen_in

pytestmark = pytest.mark.root


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
    apply_layer(io.BytesIO(packed), target, SAME)
    assert seen_in(target) == seen_in(source)


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
    apply_layer(io.BytesIO(out.getvalue()), layer, SAME)
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
        apply_layer(io.BytesIO(out.getvalue()), layer, SAME)
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
            apply_layer(io.BytesIO(out.getvalue()), disk / "diff", SAME)
    finally:
        subprocess.run(["umount", disk], check=True)


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
        apply_layer(io.BytesIO(data), target, SAME)
    except ApplyError:
        return


@pytest.mark.parametrize("mark_first", [True, False])
def test_a_whiteout_does_not_speak_of_its_own_layer(tmp_path: Path, mark_first: bool) -> None:
    base, top = directories(tmp_path, "base", "top")
    (base / "d").mkdir()
    (base / "d/old").touch()
    (base / "f").write_text("old")
    marks: list[tuple[str, bytes | None]] = [(".wh.d", b""), (".wh.f", b"")]
    members: list[tuple[str, bytes | None]] = [("d", None), ("d/new", b""), ("f", b"new")]
    stream = tar_of(*marks, *members) if mark_first else tar_of(*members, *marks)
    apply_layer(io.BytesIO(stream), top, SAME)
    with overlay(tmp_path, [top, base]) as merged:
        assert os.listdir(merged / "d") == ["new"]
        assert (merged / "f").read_text() == "new"


def test_the_size_is_that_of_what_is_there_in_the_end(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    link, symlink = tarfile.TarInfo("link"), tarfile.TarInfo("symlink")
    link.type, link.linkname = tarfile.LNKTYPE, "kept"
    symlink.type, symlink.linkname = tarfile.SYMTYPE, "target"
    stream = tar_of(
        ("a", None), ("a/b", bytes(1000)), ("a/c", bytes(500)), ("a", b"now a file"),
        ("kept", bytes(70)), link, ("kept", bytes(3)), symlink,
    )  # fmt: skip
    size, _ = apply_layer(io.BytesIO(stream), layer, SAME)
    assert size == size_of(layer) == 10 + 70 + 3 + 6


def test_a_hard_link_s_own_header_counts(tmp_path: Path) -> None:
    """So it is with overlay2, whose values these are (``tests/end_to_end/test_truth.py`` compares them)."""
    (layer,) = directories(tmp_path, "layer")
    file, symlink = tarfile.TarInfo("f"), tarfile.TarInfo("s")
    file.mode, file.uid, file.gid, file.mtime = 0o4755, 5, 6, 1000
    symlink.type, symlink.linkname, symlink.mtime = tarfile.SYMTYPE, "f", 1000
    members = [file, symlink]
    for name, target, mode in (("h", "f", 0o640), ("sh", "s", 0o600)):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.LNKTYPE, target
        link.mode, link.uid, link.gid, link.mtime = mode, 1234, 1235, 5
        members.append(link)
    apply_layer(io.BytesIO(tar_of(*members)), layer, SAME)
    for name, mode, mtime in (("f", 0o640, 5), ("h", 0o640, 5), ("s", 0o777, 1000), ("sh", 0o777, 1000)):
        status = (layer / name).lstat()
        found = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime, status.st_nlink)
        assert found == (mode, 1234, 1235, mtime, 2), name


def test_a_hard_link_leaves_no_layer(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    (tmp_path / "secret").write_text("secret")
    (layer / "way").symlink_to(tmp_path)
    for target in ("../secret", "way/secret", "/../secret"):
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, target
        with pytest.raises(ApplyError):
            apply_layer(io.BytesIO(tar_of(link)), layer, SAME)
    assert os.listdir(layer) == ["way"]


def test_the_root_keeps_its_attributes(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    layer.chmod(0o755)
    root = tarfile.TarInfo("./")
    root.type, root.mode, root.uid = tarfile.DIRTYPE, 0o700, 5
    apply_layer(io.BytesIO(tar_of(root)), layer, SAME)
    status = layer.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 0)


def test_a_thin_layer_of_more_layers_than_can_be_stacked_is_refused(tmp_path: Path) -> None:
    layers = tuple(
        ThinLayer(ContentDigest.of(b"%d" % number), LayerLocation("r.example.org", b"/%d" % number))
        for number in range(LAYER_LIMIT + 1)
    )
    accepted, refused = directories(tmp_path, "accepted", "refused")
    thin = ThinImage(layers[1:])
    assert apply_layer(io.BytesIO(tar_of(("thin.json", thin.dump()))), accepted, SAME)[1] == thin
    with pytest.raises(ApplyError, match=f"{LAYER_LIMIT + 1} layers"):
        apply_layer(io.BytesIO(tar_of(("thin.json", ThinImage(layers).dump()))), refused, SAME)
