"""Damaged objects on the server: a reader gets EIO and never wrong bytes, and all is well when they are."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.running import ask_status
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.tree.revision import Node, Revision
from cvmfs_graphdriver.planes.report import degraded_row
from cvmfs_graphdriver.repository.catalog.entry import EntryFlag
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from tests.support.fixtures import UnpackedRepository, serve, unpack
from tests.support.mounts import mounted

pytestmark = pytest.mark.root

FIXTURE = "lite-sha1-zlib"
UNREADABLE = {errno.EIO}


def flip(data: bytes, other: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def truncate(data: bytes, other: bytes) -> bytes:
    return data[: len(data) // 2]


def swap(data: bytes, other: bytes) -> bytes:
    return other


def vanish(data: bytes, other: bytes) -> bytes | None:
    return None


DAMAGES: list[Callable[[bytes, bytes], bytes | None]] = [flip, truncate, swap, vanish]


@contextmanager
def damaged(stored: Path, data: bytes | None) -> Iterator[None]:
    """A stored object with other bytes, or without any, for the time of the block."""
    good = stored.read_bytes()
    stored.unlink()
    if data is not None:
        stored.write_bytes(data)
    try:
        yield
    finally:
        stored.write_bytes(good)


class Victims:
    """Objects of each kind, two of each so that one can stand in for the other, and how to read them."""

    def __init__(self, repository: UnpackedRepository, revision: Revision) -> None:
        self.root = repository.root
        nodes = list(self.walk(revision, revision.node(1)))
        files = [n for n in nodes if n.entry.is_regular and n.entry.digest and not n.entry.is_chunked]
        by_digest = {n.entry.digest: n for n in files if n.entry.size > 100}
        self.files = list(by_digest.values())[:2]
        self.chunked = next(n for n in nodes if n.entry.is_chunked)
        self.chunks = self.chunked.mount.catalog.chunks(self.chunked.path)
        self.nested = [n for n in nodes if EntryFlag.NESTED_MOUNTPOINT in n.entry.flags][:2]

    def walk(self, revision: Revision, node: Node) -> Iterator[Node]:
        for child in revision.children(node):
            yield child
            if child.entry.is_directory:
                yield from self.walk(revision, child)

    def stored(self, name: ObjectName) -> Path:
        return self.root / name.path

    def object_of(self, node: Node) -> Path:
        assert node.entry.digest is not None
        return self.stored(ObjectName(node.entry.digest))

    def chunk(self, index: int) -> Path:
        return self.stored(ObjectName(self.chunks[index].digest, Suffix.PARTIAL))

    def catalog(self, node: Node) -> Path:
        reference = node.mount.catalog.nested_for(node.path)
        assert reference is not None
        return self.stored(ObjectName(reference.digest, Suffix.CATALOG))


@pytest.fixture
def repository(tmp_path: Path) -> UnpackedRepository:
    return unpack(FIXTURE, tmp_path / "repository")


def refused(action: Callable[[], object]) -> bool:
    """Whether an action fails, and with EIO."""
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno in UNREADABLE, caught.value
    return True


def test_readers_get_eio_and_then_the_truth(repository: UnpackedRepository, tmp_path: Path) -> None:
    with serve(repository.directory) as server:
        client = Client(repository.settings(server.url, tmp_path / "other"))
        victims = Victims(repository, client.mount())
        good = {
            node.path: client.mount().open(node).pread(node.entry.size, 0)
            for node in (*victims.files, victims.chunked)
        }
        client.close()
        with mounted(repository, server, tmp_path) as mount:

            def content(node: Node) -> bytes:
                return Path(os.fsdecode(os.fsencode(mount) + node.path)).read_bytes()

            file, other = victims.files
            stored, substitute = victims.object_of(file), victims.object_of(other).read_bytes()
            for damage in DAMAGES:
                with damaged(stored, damage(stored.read_bytes(), substitute)):
                    assert refused(lambda: content(file))
                    assert content(other) == good[other.path], "others are not affected"
            assert content(file) == good[file.path]

            last = len(victims.chunks) - 1
            stored, substitute = victims.chunk(last), victims.chunk(0).read_bytes()
            for damage in DAMAGES:
                with damaged(stored, damage(stored.read_bytes(), substitute)):
                    assert refused(lambda: content(victims.chunked))
            assert content(victims.chunked) == good[victims.chunked.path]

            directory, other = victims.nested
            stored, substitute = victims.catalog(directory), victims.catalog(other).read_bytes()
            path = os.fsencode(mount) + directory.path
            for damage in DAMAGES:
                with damaged(stored, damage(stored.read_bytes(), substitute)):
                    assert refused(lambda: os.listdir(path))
                    assert refused(lambda: os.lstat(path + b"/no such name"))
                    assert os.lstat(path).st_mode, "the directory itself is known from its parent"
            assert os.listdir(path)
            with pytest.raises(FileNotFoundError):
                os.lstat(path + b"/no such name")


def test_cache_files_that_are_cut_off_or_gone_are_fetched_again(
    repository: UnpackedRepository, tmp_path: Path
) -> None:
    with serve(repository.directory) as server, mounted(repository, server, tmp_path) as mount:
        before = {path: path.read_bytes() for path in mount.rglob("*") if path.is_file()}
        cache = tmp_path / "cache" / "shared"
        objects = [path for path in cache.glob("??/*") if path.stat().st_size > 1]
        assert objects
        for number, path in enumerate(sorted(objects)):
            if path.read_bytes().startswith(b"SQLite format"):
                continue
            if number % 2:
                os.truncate(path, path.stat().st_size // 2)
            else:
                path.unlink()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        assert {path: path.read_bytes() for path in before} == before


def test_a_dead_server_means_eio_for_what_is_not_cached(
    repository: UnpackedRepository, tmp_path: Path
) -> None:
    with serve(repository.directory) as server, mounted(repository, server, tmp_path) as mount:
        first, second = sorted(
            path for path in mount.rglob("*") if path.is_file() and path.stat().st_size > 9
        )[:2]
        content = first.read_bytes()
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):
            connection.shutdown(socket.SHUT_RDWR)
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        assert first.read_bytes() == content
        assert refused(second.read_bytes)
        (socket_path,) = (tmp_path / "cache").rglob("cvmfs_io.*")
        status = ask_status(socket_path)
        shown = f"/{second.relative_to(mount)}: "
        assert status.last_io_error_text.startswith(shown), "which file, and why"
        assert "127.0.0.1" in status.last_io_error_text
        assert shown in degraded_row([status], {})[1]
