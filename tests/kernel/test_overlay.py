"""The rules of whiteouts, and stacks of layers as the kernel sees them."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel import overlay
from cvmfs_graphdriver.kernel.errors import MountError, OverlayError
from cvmfs_graphdriver.kernel.mount import MountAttribute, UmountFlag, clone_tree, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from cvmfs_graphdriver.kernel.overlay import (
    OPAQUE_MARK,
    OPAQUE_VALUE,
    OPAQUE_XATTR,
    WHITEOUT_DEVICE,
    WHITEOUT_MODE,
    escape_option,
    escape_xattr,
    hidden_by,
    is_mark,
    is_whiteout,
    mount_overlay,
    plain_options,
    unescape_xattr,
    whiteout_of,
)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (b".wh.a", b"a"),
        (b".wh..bashrc", b".bashrc"),
        (b".wh..wh", b".wh"),
        (b".wh....", b"..."),
        (b".wh.", None),
        (b".wh..", None),
        (b".wh...", None),
        (OPAQUE_MARK, None),
        (b".wh..wh.plnk", None),
        (b".wh", None),
        (b"a.wh.b", None),
    ],
)
def test_what_a_name_hides(name: bytes, hidden: bytes | None) -> None:
    assert hidden_by(name) == hidden
    assert is_mark(name) == name.startswith(b".wh.")


def test_whiteouts_by_name_and_by_device() -> None:
    assert hidden_by(whiteout_of(b"x")) == b"x"
    assert is_whiteout(WHITEOUT_MODE | 0o600, 0)
    assert not is_whiteout(WHITEOUT_MODE, os.makedev(1, 3))
    assert not is_whiteout(0o100644, 0)


@given(st.binary(max_size=40))
def test_escaped_attributes_come_back(rest: bytes) -> None:
    for name in (b"trusted.overlay." + rest, b"user." + rest):
        escaped = escape_xattr(name)
        assert unescape_xattr(escaped) == name
        assert escaped == name or escaped.startswith(b"trusted.overlay.overlay.")


def test_overlays_own_attributes_are_not_the_images() -> None:
    assert unescape_xattr(OPAQUE_XATTR) is None


def test_options_are_escaped() -> None:
    assert escape_option(rb"/plain/a\b:c,d") == rb"/plain/a\\b\:c\,d"


def test_options_of_one_string() -> None:
    """A comma in a value does not end it: SELinux labels have some."""
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    options = {"context": label, "index": "off", "volatile": None}
    stack = overlay._Stack(["/b", 7], ["/d:"], "/u,", "/w", options, MountAttribute.NONE)
    text = overlay._option_string(stack, lambda place: escape_option(str(place).encode()))
    expected = b"lowerdir=/b:7::/d\\:,upperdir=/u\\,,workdir=/w,"
    assert text == expected + b'context="%b",index=off,volatile' % label.encode()


@pytest.fixture(params=["context", "string"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of mounting, also on a kernel that would always take the first."""
    if request.param == "context":
        if not overlay._takes_single_layers():
            pytest.skip("this kernel takes layers only as one string")
    else:
        monkeypatch.setattr(overlay, "_takes_single_layers", lambda: False)
    return str(request.param)


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        (("lowerdir", "lowerdir+", overlay._UNKNOWN), False),  # before Linux 6.5: whatever it is
        (("lowerdir",), False),  # before 6.8
        (("lowerdir", "lowerdir+"), True),
    ],
)
def test_what_older_kernels_take(
    monkeypatch: pytest.MonkeyPatch, takes: tuple[str, ...], expected: bool
) -> None:
    """No file system of a kernel of today takes everything as theirs did; so this one is made up."""

    def take(_: object, key: str, *value: bytes) -> None:
        if key not in takes:
            raise MountError(f"no {key} with {value}", errno.EINVAL)

    context = type("Context", (), {
        "__enter__": lambda self: self, "__exit__": lambda *_: None, "set_string": take, "set_flag": take,
    })  # fmt: skip
    monkeypatch.setattr(overlay, "FilesystemContext", lambda _: context())
    assert overlay._takes_single_layers.__wrapped__() == expected


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "merged"
    place.mkdir()
    yield place
    while mount_at(place):
        umount(place, UmountFlag.DETACH)


def layers(tmp_path: Path, count: int, name: str = "layer") -> list[Path]:
    """Layers, topmost first, each with a file of its own and one that all have."""
    places = [tmp_path / f"{name}{number}" for number in reversed(range(count))]
    for number, place in enumerate(places):
        place.mkdir(parents=True)
        (place / f"own{number}").write_bytes(b"own")
        (place / "common").write_text(str(number))
    return places


@pytest.mark.root
def test_writable_stack(tmp_path: Path, target: Path, way: str) -> None:
    lower = layers(tmp_path, 3)
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    mount_overlay(lower, target, upper=upper, work=work, options={"index": "off", "redirect_dir": "off"})
    assert sorted(os.listdir(target)) == ["common", "own0", "own1", "own2"]
    assert (target / "common").read_text() == "0"
    (target / "own1").unlink()
    status = os.lstat(upper / "own1")
    assert is_whiteout(status.st_mode, status.st_rdev)
    found = mount_at(target)
    assert found is not None
    assert b"index=off" not in found.super_options or b"redirect_dir=off" in found.super_options


@pytest.mark.root
@pytest.mark.parametrize("odd", ["co:lon", "com,ma", "back\\slash", "all\\:,\\\\ blank", "x" * 250])
def test_odd_paths(tmp_path: Path, target: Path, way: str, odd: str) -> None:
    home = tmp_path / odd
    lower = layers(home, 2)
    upper, work = home / "upper", home / "work"
    upper.mkdir()
    work.mkdir()
    mount_overlay(lower, target, upper=upper, work=work)
    (target / "new").write_bytes(b"")
    assert (upper / "new").exists()
    assert (target / "own1").read_bytes() == b"own"


@pytest.mark.root
def test_many_layers(tmp_path: Path, target: Path, way: str) -> None:
    """As many as Docker has at most, and more, below an upper directory, with options that nobody splits."""
    lower = layers(tmp_path, 128, "a-name-that-makes-the-options-longer-than-a-page-")
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    here = os.getcwd()
    mount_overlay(lower, target, upper=upper, work=work, options=plain_options())
    assert len(os.listdir(target)) == 129
    assert (target / "common").read_bytes() == b"0"
    (target / "own127").write_bytes(b"new")
    assert (upper / "own127").read_bytes() == b"new"
    assert os.getcwd() == here


@pytest.mark.root
def test_layers_by_descriptor(tmp_path: Path, target: Path) -> None:
    lower = layers(tmp_path, 2)
    descriptors = [clone_tree(place) for place in lower]
    try:
        mount_overlay(descriptors, target)
    except MountError:
        pytest.skip("this kernel takes no detached layers")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert (target / "own1").exists()


@pytest.mark.root
def test_data_only_layers(tmp_path: Path, target: Path, way: str) -> None:
    meta, data, empty = tmp_path / "meta", tmp_path / "data", tmp_path / "empty"
    for place in (meta, data, empty):
        place.mkdir()
    (data / "object").write_bytes(b"content")
    with (meta / "file").open("wb") as file:
        file.truncate(7)
    os.setxattr(meta / "file", "trusted.overlay.metacopy", b"")
    os.setxattr(meta / "file", "trusted.overlay.redirect", b"/object")
    mount_overlay([meta, empty], target, data=[data], options={"metacopy": "on"})
    assert (target / "file").read_bytes() == b"content"
    assert not (target / "object").exists()


@pytest.mark.root
def test_too_many_layers_are_refused(target: Path) -> None:
    with pytest.raises(OverlayError, match="501 layers"):
        mount_overlay([target] * 501, target)


@pytest.mark.root
def test_a_refusal_says_why(tmp_path: Path, target: Path, way: str) -> None:
    (lower,) = layers(tmp_path, 1)
    with pytest.raises((MountError, FileNotFoundError), match="No such file"):
        mount_overlay([lower, tmp_path / "missing"], target)
    with pytest.raises(MountError):
        mount_overlay([lower], target, options={"nonsense": None})
    assert mount_at(target) is None


@pytest.mark.root
def test_the_kernel_takes_our_whiteouts_and_opaque_directories(tmp_path: Path, target: Path) -> None:
    lower, top = tmp_path / "lower", tmp_path / "top"
    for place in (lower / "dir", lower / "keep", top / "dir"):
        place.mkdir(parents=True)
    (lower / "dir" / "old").touch()
    (lower / "gone").touch()
    (top / "dir" / "new").touch()
    os.mknod(top / "gone", WHITEOUT_MODE, WHITEOUT_DEVICE)
    os.setxattr(top / "dir", OPAQUE_XATTR, OPAQUE_VALUE)
    os.setxattr(top / "dir" / "new", escape_xattr(b"trusted.overlay.own"), b"image's")
    mount_overlay([top, lower], target)
    assert sorted(os.listdir(target)) == ["dir", "keep"]
    assert os.listdir(target / "dir") == ["new"]
    assert os.listxattr(target / "dir" / "new") in (["trusted.overlay.own"], [])


@pytest.mark.root
def test_unmounting_ends_everything(tmp_path: Path, target: Path) -> None:
    mount_overlay(layers(tmp_path, 2), target)
    umount(target)
    assert subprocess.run(["mountpoint", "-q", target], check=False).returncode != 0
