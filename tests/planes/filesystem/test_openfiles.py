"""Files that stay open, and those that do not."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.planes.filesystem.openfiles import OpenFiles
from cvmfs_graphdriver.repository.catalog.entry import Chunk
from cvmfs_graphdriver.repository.digest import Digest


class Opener:
    """Opens files that have their own number as content."""

    def __init__(self, directory: Path) -> None:
        self.opened: list[int] = []
        self.paths = [directory / str(number) for number in range(10)]
        for number, path in enumerate(self.paths):
            path.write_bytes(b"%d" % number * 1000)

    def __call__(self, number: int) -> Callable[[], OpenFile]:
        def open_file() -> OpenFile:
            self.opened.append(number)
            path = self.paths[number]
            chunk = Chunk(0, 1000, Digest.of(path.read_bytes()))
            file = OpenFile((chunk,), lambda _: os.open(path, os.O_RDONLY), lambda _: None)
            file.fileno()
            return file

        return open_file


def test_the_files_used_last_stay_open(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    files = OpenFiles(2)
    before = len(os.listdir("/proc/self/fd"))
    for number in (1, 2, 1, 3, 1, 2):
        assert files.get(number, opener(number)).pread(1, 0) == str(number).encode()
    assert opener.opened == [1, 2, 3, 2]
    assert len(files) == 2
    assert len(os.listdir("/proc/self/fd")) == before + 2
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_readers_of_dropped_files_get_their_bytes(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    files = OpenFiles(3)
    wrong: list[object] = []

    def read(seed: int) -> None:
        for step in range(1500):
            number = (seed * 7 + step * 5) % 9 + 1
            try:
                if files.get(number, opener(number)).pread(3, 5) != b"%d" % number * 3:
                    wrong.append(number)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    files.close()


def test_what_was_evicted_and_is_not_read_is_closed(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    files = OpenFiles(5)
    for number in (1, 2, 3):
        files.get(number, opener(number))
    opener.paths[1].unlink()
    opener.paths[2].unlink()
    files.close_evicted()
    assert len(files) == 3, "all were used a moment ago"
    assert files.get(2, opener(2)).pread(1, 0) == b"2"
    files.close_evicted()
    assert opener.opened == [1, 2, 3]
    assert files.get(2, opener(2)).pread(1, 0) == b"2"
    assert len(files) == 2, "nobody reads the first, and the third is in its place"
    files.close()
