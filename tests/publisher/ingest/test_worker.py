"""Worker processes store what the same code stores without them, and end with whoever started them."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import weakref
import zlib
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.ingest.worker import Form, Piece, Worker, store
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import Engine
from cvmfs_graphdriver.repository.digest import Algorithm, Suffix

FORM = Form(Algorithm.SHA1, Compression.ZLIB, Engine.ZLIB)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.create(tmp_path / "storage")


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("engine", list(Engine))
def test_a_worker_stores_what_is_stored_without_one(
    tmp_path: Path, algorithm: Algorithm, compression: Compression, engine: Engine
) -> None:
    form = Form(algorithm, compression, engine)
    here, there = LocalStorage.create(tmp_path / "here"), LocalStorage.create(tmp_path / "there")
    pieces = [
        Piece.of(b"", Suffix.NONE),
        Piece((b"one" * 900, memoryview(b"one" * 100), b""), 3000, Suffix.PARTIAL),
        Piece.of(b"one" * 1000, Suffix.NONE),
    ]
    expected = [store(here, form, piece) for piece in pieces]
    with Worker(there, form) as worker:
        assert worker.store(pieces) == expected
        assert [stored.new for stored in worker.store(pieces)] == [False] * 3
    for piece, stored in zip(pieces, expected, strict=True):
        name = f"data/{stored.digest.text[:2]}/{stored.digest.text[2:]}{piece.suffix}"
        data = there.get(name, limit=1 << 20)
        assert data is not None
        assert data == here.get(name, limit=1 << 20)
        assert stored.size == len(data)
        assert (zlib.decompress(data) if compression is Compression.ZLIB else data) == b"".join(piece.parts)


def test_objects_of_the_zlib_engine_have_the_stock_server_s_names(storage: LocalStorage) -> None:
    stored = store(storage, FORM, Piece.of(b"", Suffix.NONE))
    assert stored.digest.text == "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
    assert hashlib.sha1(zlib.compress(b"")).hexdigest() == stored.digest.text


def test_an_error_is_told_and_the_worker_goes_on(storage: LocalStorage) -> None:
    target = storage.directory / "data/e8"
    with Worker(storage, FORM) as worker:
        target.rmdir()
        with pytest.raises(StorageError, match="no such directory"):
            worker.store([Piece.of(b"", Suffix.NONE)])
        target.mkdir()
        assert worker.store([Piece.of(b"", Suffix.NONE)])[0].new


def test_an_error_keeps_nothing_of_what_was_to_be_stored(storage: LocalStorage) -> None:
    class Watched(bytearray):
        """Content whose end can be seen."""

    content = Watched(b"content" * 1000)
    end = weakref.ref(content)
    pieces = [Piece((content,), len(content), Suffix.NONE)]  # type: ignore[arg-type]
    for number in range(256):
        (storage.directory / "data" / f"{number:02x}").rmdir()
    with Worker(storage, FORM) as worker:
        with pytest.raises(StorageError) as caught:
            worker.store(pieces)
        pieces.clear()
        del content
        assert end() is None
        assert "no such directory" in str(caught.value)


def test_a_worker_that_is_killed_is_an_error(storage: LocalStorage) -> None:
    with Worker(storage, FORM) as worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(StorageError, match="ended with status -9"):
            worker.store([Piece.of(b"", Suffix.NONE)])


def test_a_worker_ends_with_whoever_started_it(storage: LocalStorage) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from cvmfs_graphdriver.publisher.storage.local import LocalStorage\n"
        "from cvmfs_graphdriver.publisher.ingest.worker import *\n"
        "from tests.publisher.ingest.test_worker import FORM\n"
        "worker = Worker(LocalStorage(Path(sys.argv[1])), FORM)\n"
        "print(worker._process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, storage.directory], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
    for _ in range(100):
        if not Path(f"/proc/{number}/cmdline").exists() or not Path(f"/proc/{number}/cmdline").read_bytes():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the worker is still there")
