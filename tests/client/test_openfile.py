"""Reading content that consists of pieces."""

import os
import threading
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.errors import CacheError, ClientError
from cvmfs_graphdriver.client.openfile import OpenFile
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.entry import Chunk

SIZES = (1000, 1, 4096, 70_000, 12, 30, 40, 50, 60, 70, 80, 90)
CONTENT = os.urandom(sum(SIZES))


class Pieces:
    """Files for the pieces of CONTENT, and a count of what was fetched."""

    def __init__(self, directory: Path, sizes: tuple[int, ...] = SIZES) -> None:
        self.fetched: list[int] = []
        self.ahead: list[int] = []
        self.directory = directory
        self.chunks = []
        offset = 0
        for size in sizes:
            data = CONTENT[offset : offset + size]
            (directory / str(offset)).write_bytes(data)
            self.chunks.append(Chunk(offset, size, Digest.of(data)))
            offset += size

    def fetch(self, chunk: Chunk) -> int:
        self.fetched.append(chunk.offset)
        return os.open(self.directory / str(chunk.offset), os.O_RDONLY)

    def open(self) -> OpenFile:
        return OpenFile(self.chunks, self.fetch, lambda chunk: self.ahead.append(chunk.offset))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 10), (990, 20), (999, 5000), (0, len(CONTENT)), (len(CONTENT) - 5, 100), (len(CONTENT), 10), (5, 0)],
)
def test_ranges(tmp_path: Path, offset: int, size: int) -> None:
    file = Pieces(tmp_path).open()
    assert file.pread(size, offset) == CONTENT[offset : offset + size]
    file.close()


def test_whole_files_and_empty_ones(tmp_path: Path) -> None:
    whole = Pieces(tmp_path, (len(CONTENT),)).open()
    assert whole.is_whole
    assert os.pread(whole.fileno(), 100, 50) == CONTENT[50:150]
    whole.close()
    empty = Pieces(tmp_path, ()).open()
    assert empty.pread(10, 0) == b""
    with pytest.raises(ClientError):
        empty.fileno()


def test_many_threads_read_right_bytes_and_close_everything(tmp_path: Path) -> None:
    """More pieces than are held open, so that descriptors are closed while others read."""
    before = open_descriptors()
    file = Pieces(tmp_path).open()
    wrong: list[object] = []

    def read(seed: int) -> None:
        position = seed * 37
        for _ in range(3000):
            position = (position * 1103515245 + 12345) % len(CONTENT)
            try:
                if file.pread(200, position) != CONTENT[position : position + 200]:
                    wrong.append(position)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    file.close()
    assert open_descriptors() == before


def test_a_piece_cut_off_is_fetched_again(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    file = pieces.open()
    assert file.pread(10, 1001) == CONTENT[1001:1011]
    path = tmp_path / "1001"
    good = path.read_bytes()
    os.truncate(path, 5)
    path.rename(tmp_path / "damaged")
    path.write_bytes(good)
    assert file.pread(100, 1050) == CONTENT[1050:1150]
    os.truncate(path, 5)
    with pytest.raises(CacheError, match="cut off"):
        file.pread(100, 1050)
    file.close()


def test_sequential_readers_get_the_next_pieces_ahead(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    file = pieces.open()
    file.pread(1001, 0)
    assert pieces.ahead == [1001, 5097]
    file.pread(100, 70_000)
    assert pieces.ahead == [1001, 5097], "a jump is no sequence"
    file.close()
