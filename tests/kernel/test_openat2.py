"""No path leaves the directory it must stay in."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.openat2 import open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    inside = tmp_path / "root"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "file").write_bytes(b"content")
    (inside / "a" / "up").symlink_to("..")
    (inside / "link").symlink_to("a/file")
    (inside / "out").symlink_to("/etc")
    (tmp_path / "secret").write_bytes(b"secret")
    descriptor = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_plain_paths_open(root: int) -> None:
    descriptor = open_beneath(root, b"a/b/../file", os.O_RDONLY)
    try:
        assert os.read(descriptor, 100) == b"content"
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)
    os.close(open_beneath(root, b"", os.O_RDONLY | os.O_DIRECTORY))


def test_creates_with_mode(root: int) -> None:
    os.close(open_beneath(root, b"a/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
    assert os.stat("a/new", dir_fd=root).st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "path",
    [b"../secret", b"a/../../secret", b"a/up/a/file", b"link", b"out/passwd", b"/etc/passwd", b"..", b"a\0b"],
)
def test_escapes_are_refused(root: int, path: bytes) -> None:
    with pytest.raises(PathEscapeError) as caught:
        open_beneath(root, path, os.O_RDONLY)
    assert repr(path) in str(caught.value)


def test_ordinary_errors_keep_their_kind(root: int) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_beneath(root, b"a/nothing", os.O_RDONLY)
    assert caught.value.filename == b"a/nothing"
    with pytest.raises(NotADirectoryError):
        open_beneath(root, b"a/file/x", os.O_RDONLY)
    with pytest.raises(OSError) as odd:
        open_beneath(root, b"x" * 5000, os.O_RDONLY)
    assert odd.value.errno == errno.ENAMETOOLONG


def test_a_link_itself_can_be_had(root: int) -> None:
    descriptor = open_beneath(root, b"link", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=descriptor) == "a/file"
    os.close(descriptor)
