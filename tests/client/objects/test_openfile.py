"""Open files: pieces, reading ahead, pieces that are cut off, many threads."""

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.errors import CacheError, ClientError
from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.repository.catalog.entry import Chunk
from cvmfs_graphdriver.repository.digest import Digest

SIZE = 10_000


class Pieces:
    """A file cut into pieces that lie in a directory."""

    def __init__(self, directory: Path, count: int) -> None:
        self.content = random.Random(7).randbytes(SIZE * count - 123 if count else 0)
        self.directory = directory
        self.fetched: list[int] = []
        self.ahead: list[int] = []
        self.chunks = []
        for number in range(count):
            data = self.content[number * SIZE : (number + 1) * SIZE]
            (directory / str(number)).write_bytes(data)
            self.chunks.append(Chunk(number * SIZE, len(data), Digest.of(data)))

    def fetch(self, chunk: Chunk) -> int:
        number = chunk.offset // SIZE
        self.fetched.append(number)
        return os.open(self.directory / str(number), os.O_RDONLY)

    def open(self) -> OpenFile:
        return OpenFile(self.chunks, self.fetch, lambda chunk: self.ahead.append(chunk.offset // SIZE))


@pytest.fixture
def pieces(tmp_path: Path) -> Pieces:
    return Pieces(tmp_path, 20)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_any_part_can_be_read(pieces: Pieces) -> None:
    choose = random.Random(1)
    with closing(pieces.open()) as file:
        for _ in range(500):
            offset = choose.randrange(len(pieces.content) + 1000)
            size = choose.choice([1, 100, SIZE, SIZE + 1, 5 * SIZE, 10**6])
            assert file.pread(size, offset) == pieces.content[offset : offset + size]
        assert file.pread(10, len(pieces.content)) == b""
        assert file.pread(0, 0) == b""
        assert file.pread(10, 10**12) == b""


def test_only_what_is_read_is_fetched(pieces: Pieces) -> None:
    with closing(pieces.open()) as file:
        file.pread(10, 3 * SIZE)
        file.pread(10, 15 * SIZE - 5)
        assert pieces.fetched == [3, 14, 15]
        assert pieces.ahead == []


def test_who_reads_on_gets_the_next_pieces_ahead(pieces: Pieces) -> None:
    with closing(pieces.open()) as file:
        for offset in range(0, 5 * SIZE, SIZE // 2):
            file.pread(SIZE // 2, offset)
        assert pieces.ahead == sorted(set(pieces.ahead))
        assert set(pieces.ahead) <= set(range(2, 8))
        assert len(pieces.ahead) >= 4
        before = len(pieces.ahead)
        file.pread(10, 17 * SIZE)
        file.pread(10, 12 * SIZE)
        assert len(pieces.ahead) == before


def test_descriptors_are_few_and_given_back(pieces: Pieces) -> None:
    before = _descriptors()
    file = pieces.open()
    file.pread(10**9, 0)
    assert _descriptors() <= before + 8
    file.close()
    assert _descriptors() == before


def test_whole_and_empty_files(tmp_path: Path) -> None:
    whole = Pieces(tmp_path, 1).open()
    with closing(whole):
        assert whole.is_whole
        assert os.fstat(whole.fileno()).st_size == SIZE - 123
    with closing(Pieces(tmp_path, 0).open()) as empty:
        assert empty.pread(10, 0) == b""
        assert not empty.is_whole
    with closing(Pieces(tmp_path, 2).open()) as several, pytest.raises(ClientError, match="no single"):
        several.fileno()


def test_a_piece_that_was_cut_off_is_fetched_again(pieces: Pieces) -> None:
    with closing(pieces.open()) as file:
        file.pread(10, 0)
        path = pieces.directory / "0"
        data = path.read_bytes()
        os.truncate(path, 100)
        path.rename(path.with_suffix(".damaged"))
        path.write_bytes(data)
        assert file.pread(SIZE, 0) == data
        assert pieces.fetched == [0, 0]
        os.truncate(path, 100)
        with pytest.raises(CacheError, match="truncated"):
            file.pread(SIZE, 0)


def test_many_threads_read_one_file(pieces: Pieces) -> None:
    before = _descriptors()
    stop = threading.Event()

    def read(seed: int) -> Iterator[bool]:
        choose = random.Random(seed)
        for _ in range(200):
            offset = choose.randrange(len(pieces.content))
            yield file.pread(2 * SIZE, offset) == pieces.content[offset : offset + 2 * SIZE]

    file = pieces.open()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda seed: all(read(seed)), range(8)))
    stop.set()
    file.close()
    assert _descriptors() == before
