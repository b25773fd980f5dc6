"""The server and the protocol, with the kernel at the other end."""

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.fuse.filesystem import RefusalError
from cvmfs_graphdriver.kernel.fuse.server import Server
from tests.support.memory_filesystem import MemoryFilesystem, serving

pytestmark = pytest.mark.root

FILE = stat.S_IFREG | 0o644


@pytest.fixture
def filesystem() -> MemoryFilesystem:
    return MemoryFilesystem()


@pytest.fixture
def served(tmp_path: Path, filesystem: MemoryFilesystem) -> Iterator[Server]:
    (tmp_path / "mnt").mkdir()
    with serving(filesystem, tmp_path / "mnt") as server:
        yield server


@pytest.fixture
def mnt(tmp_path: Path, served: Server) -> Path:
    del served
    return tmp_path / "mnt"


def test_every_attribute(filesystem: MemoryFilesystem, mnt: Path) -> None:
    filesystem.add(
        b"file",
        stat.S_IFREG | 0o6755,
        b"12345",
        blocks=9,
        mtime=1_700_000_000,
        mtime_ns=123_456_789,
        links=3,
        uid=70_000,
        gid=80_000,
    )
    status = os.lstat(mnt / "file")
    assert status.st_ino == 2
    assert status.st_mode == stat.S_IFREG | 0o6755
    assert (status.st_size, status.st_blocks, status.st_blksize, status.st_nlink) == (5, 9, 4096, 3)
    assert (status.st_uid, status.st_gid) == (70_000, 80_000)
    assert status.st_mtime_ns == status.st_atime_ns == status.st_ctime_ns == 1_700_000_000_123_456_789


def test_times_before_1970(filesystem: MemoryFilesystem, mnt: Path) -> None:
    filesystem.add(b"old", FILE, mtime=-5, mtime_ns=7)
    assert os.lstat(mnt / "old").st_mtime_ns == -4_999_999_993


@pytest.mark.parametrize("number", [os.makedev(1, 3), os.makedev(259, 70_000), os.makedev(4095, 0xFFFFF), 0])
def test_devices(filesystem: MemoryFilesystem, mnt: Path, number: int) -> None:
    filesystem.add(b"device", stat.S_IFCHR | 0o600, rdev=number)
    assert os.lstat(mnt / "device").st_rdev == number


def test_odd_names(filesystem: MemoryFilesystem, mnt: Path) -> None:
    names = {b"\xff\xfe", b"new\nline", b"x" * 255, b" ", "ü".encode()}
    for name in names:
        filesystem.add(name, FILE, name)
    assert set(os.listdir(os.fsencode(mnt))) == names
    for name in names:
        with open(os.fsencode(mnt) + b"/" + name, "rb") as file:
            assert file.read() == name


def test_links(filesystem: MemoryFilesystem, mnt: Path) -> None:
    filesystem.add(b"link", stat.S_IFLNK | 0o777, b"to/somewhere" * 300)
    assert os.readlink(mnt / "link") == "to/somewhere" * 300


def test_reading_costs_no_open_and_happens_once(filesystem: MemoryFilesystem, mnt: Path) -> None:
    content = os.urandom(5_000_000)
    filesystem.add(b"big", FILE, content)
    filesystem.add(b"empty", FILE)
    assert (mnt / "big").read_bytes() == content
    reads = filesystem.calls.count("read")
    assert reads <= 5_000_000 // (64 << 10)
    assert (mnt / "big").read_bytes() == content
    assert filesystem.calls.count("read") == reads
    assert (mnt / "empty").read_bytes() == b""


def test_positioned_reads(filesystem: MemoryFilesystem, mnt: Path) -> None:
    content = bytes(range(256)) * 1000
    filesystem.add(b"file", FILE, content)
    descriptor = os.open(mnt / "file", os.O_RDONLY)
    try:
        for offset in (255_999, 100_000, 3, 256_000, 300_000):
            assert os.pread(descriptor, 10, offset) == content[offset : offset + 10]
    finally:
        os.close(descriptor)


def test_big_directories(filesystem: MemoryFilesystem, mnt: Path) -> None:
    directory = filesystem.add(b"dir", stat.S_IFDIR | 0o755, links=2)
    names = {b"entry-%d" % number for number in range(3000)}
    for name in names:
        filesystem.add(name, FILE, parent=directory)
    assert set(os.listdir(os.fsencode(mnt / "dir"))) == names
    with os.scandir(mnt / "dir") as entries:
        assert sum(entry.stat(follow_symlinks=False).st_mode == FILE for entry in entries) == 3000
    counts = Counter(filesystem.calls)
    assert counts["lookup"] <= 2, "READDIRPLUS has told all attributes"
    before = len(filesystem.calls)
    assert len(os.listdir(mnt / "dir")) == 3000
    assert len(filesystem.calls) == before, "the kernel has the listing"


def test_absent_names_are_remembered(filesystem: MemoryFilesystem, mnt: Path) -> None:
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            os.lstat(mnt / "nothing")
    assert filesystem.calls.count("lookup") == 1


def test_extended_attributes(filesystem: MemoryFilesystem, mnt: Path) -> None:
    node = filesystem.add(b"file", FILE)
    filesystem.files[node].xattrs = {b"user.a": b"value\0\xff", b"trusted.b": b"", b"security.c": b"z" * 5000}
    path = mnt / "file"
    assert sorted(os.listxattr(path)) == ["security.c", "trusted.b", "user.a"]
    assert os.getxattr(path, "user.a") == b"value\0\xff"
    assert os.getxattr(path, "trusted.b") == b""
    assert os.getxattr(path, "security.c") == b"z" * 5000
    with pytest.raises(OSError) as absent:
        os.getxattr(path, "user.none")
    assert absent.value.errno == errno.ENODATA
    assert os.listxattr(mnt) == []


def test_statvfs(mnt: Path) -> None:
    status = os.statvfs(mnt)
    assert (status.f_blocks, status.f_bfree, status.f_files, status.f_ffree) == (1000, 400, 50, 7)
    assert (status.f_bsize, status.f_namemax) == (512, 255)
    assert status.f_flag & os.ST_RDONLY
    assert status.f_flag & os.ST_NODEV


def test_nothing_can_be_written(filesystem: MemoryFilesystem, mnt: Path) -> None:
    filesystem.add(b"file", FILE, b"content")
    attempts: list[Callable[[], object]] = [
        lambda: (mnt / "new").write_bytes(b""),
        lambda: (mnt / "file").write_bytes(b""),
        (mnt / "file").unlink,
        (mnt / "dir").mkdir,
        lambda: (mnt / "file").chmod(0o600),
        lambda: os.setxattr(mnt / "file", "user.x", b""),
        lambda: os.utime(mnt / "file"),
        lambda: (mnt / "file").rename(mnt / "other"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS


def test_ioctl(filesystem: MemoryFilesystem, mnt: Path) -> None:
    filesystem.add(b"file", FILE)
    get_flags = 0x80086601
    with (mnt / "file").open("rb") as file, pytest.raises(OSError) as caught:
        fcntl.ioctl(file, get_flags, struct.pack("l", 0))
    assert caught.value.errno == errno.ENOTTY


@pytest.mark.parametrize(
    ("raised", "number"),
    [
        (RefusalError(errno.EACCES), errno.EACCES),
        (FileNotFoundError(errno.ENOENT, "in a cache"), errno.EIO),
        (ZeroDivisionError(), errno.EIO),
    ],
)
def test_errors(filesystem: MemoryFilesystem, mnt: Path, raised: Exception, number: int) -> None:
    filesystem.add(b"file", FILE, b"x")

    def fail(operation: str, node: int) -> None:
        if node != 1 or operation == "lookup":
            raise raised

    os.listdir(mnt)
    filesystem.before = fail
    with pytest.raises(OSError) as caught:
        (mnt / "file").read_bytes()
    assert caught.value.errno == number
    with pytest.raises(OSError) as absent:
        os.lstat(mnt / "unknown")
    assert absent.value.errno == number
    assert (raised in filesystem.errors) == (number == errno.EIO), "the file system is told of its failures"
    filesystem.before = lambda _operation, _node: None
    assert (mnt / "file").read_bytes() == b"x", "an error is not remembered"


def test_one_that_waits_holds_up_nobody(filesystem: MemoryFilesystem, mnt: Path) -> None:
    slow = filesystem.add(b"slow", FILE, b"slow")
    filesystem.add(b"quick", FILE, b"quick")
    go_on = threading.Event()

    def wait(operation: str, node: int) -> None:
        if operation == "read" and node == slow:
            go_on.wait(10)

    filesystem.before = wait
    results: list[bytes] = []
    reader = threading.Thread(target=lambda: results.append((mnt / "slow").read_bytes()))
    reader.start()
    assert (mnt / "quick").read_bytes() == b"quick"
    assert results == []
    go_on.set()
    reader.join()
    assert results == [b"slow"]


def test_invalidation(filesystem: MemoryFilesystem, served: Server, mnt: Path) -> None:
    file = filesystem.add(b"file", FILE, b"old")
    assert (mnt / "file").read_bytes() == b"old"
    assert not (mnt / "later").exists()
    assert os.listdir(mnt) == ["file"]
    filesystem.change(file, b"newer")
    filesystem.add(b"later", FILE)
    assert (mnt / "file").read_bytes() == b"old"
    assert not (mnt / "later").exists()
    served.invalidate_inode(file)
    served.invalidate_inode(1)
    served.invalidate_inode(99)
    assert (mnt / "file").read_bytes() == b"newer"
    assert sorted(os.listdir(mnt)) == ["file", "later"]


READER = """
import signal, sys
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, lambda *_: None)
sys.stdout.write(open(sys.argv[1]).read())
"""


@pytest.mark.parametrize(
    ("operation", "number", "handler", "dies"),
    [
        ("lookup", signal.SIGKILL, False, True),
        ("lookup", signal.SIGTERM, False, True),
        ("lookup", signal.SIGQUIT, False, True),
        ("lookup", signal.SIGTERM, True, False),
        ("lookup", signal.SIGWINCH, False, False),
        ("read", signal.SIGKILL, False, True),
        ("read", signal.SIGTERM, False, True),
        ("read", signal.SIGTERM, True, False),
    ],
)
def test_only_deadly_signals_end_a_wait(
    filesystem: MemoryFilesystem, mnt: Path, operation: str, number: int, handler: bool, dies: bool
) -> None:
    filesystem.add(b"slow", FILE, b"content")
    waiting, go_on = threading.Event(), threading.Event()

    def wait(called: str, node: int) -> None:
        if called == operation:
            waiting.set()
            go_on.wait(20)

    filesystem.before = wait
    command = [sys.executable, "-S", "-c", READER, str(mnt / "slow"), *(["handle"] if handler else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        try:
            assert waiting.wait(10)
            resource.prlimit(reader.pid, resource.RLIMIT_CORE, (0, 0))
            reader.send_signal(number)
            if dies:
                assert reader.wait(5) == -number
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    reader.wait(0.5)
        finally:
            go_on.set()
        assert reader.stdout is not None
        assert reader.stdout.read() == (b"" if dies else b"content")


def test_file_handles_work_without_a_path(filesystem: MemoryFilesystem, mnt: Path) -> None:
    """What NFS servers and overlayfs do: a handle made now is opened after everything was forgotten."""
    directory = filesystem.add(b"dir", stat.S_IFDIR | 0o755, links=2)
    filesystem.add(b"file", FILE, b"content", parent=directory)
    handle = struct.pack("Ii", 128, 0) + bytes(128)
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(handle)
    mount_id = ctypes.c_int()
    path = os.fsencode(mnt / "dir" / "file")
    assert libc.name_to_handle_at(-100, path, buffer, ctypes.byref(mount_id), 0) == 0
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    mount = os.open(mnt, os.O_RDONLY)
    try:
        descriptor = libc.open_by_handle_at(mount, buffer, os.O_RDONLY)
        assert descriptor >= 0, os.strerror(ctypes.get_errno())
        assert os.read(descriptor, 100) == b"content"
        os.close(descriptor)
    finally:
        os.close(mount)
