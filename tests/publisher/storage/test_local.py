"""The local storage: files whole or not at all, one publisher at a time, errors that say what to do."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import BusyError, StorageError
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.storage.upstream import open_storage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.create(tmp_path / "storage")


def leftovers(storage: LocalStorage) -> list[str]:
    return [name for name in os.listdir(storage.directory / "data/txn") if name != ".lock"]


def test_the_layout_is_the_stock_server_s(storage: LocalStorage) -> None:
    expected = {f"{number:02x}" for number in range(256)} | {"txn"}
    assert {path.name for path in (storage.directory / "data").iterdir()} == expected


def test_a_place_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(StorageError, match="not empty"):
        LocalStorage.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_files_come_back(storage: LocalStorage, tmp_path: Path) -> None:
    assert not storage.has("data/ab/cd")
    assert storage.get("data/ab/cd", limit=10) is None
    assert storage.open("data/ab/cd") is None
    storage.put("data/ab/cd", b"one")
    storage.put("data/ab/cd", memoryview(b"two"))
    (tmp_path / "source").write_bytes(b"three")
    storage.put_file("data/ab/ef", tmp_path / "source")
    assert storage.has("data/ab/cd")
    assert [storage.size(f"data/ab/{name}") for name in ("cd", "ef", "none")] == [3, 5, None]
    assert storage.get("data/ab/cd", limit=3) == b"two"
    opened = storage.open("data/ab/ef")
    assert opened is not None
    with opened as reader:
        assert [reader.read(3), reader.read(3), reader.read(3)] == [b"thr", b"ee", b""]
    assert (storage.directory / "data/ab/cd").stat().st_mode & 0o777 == 0o644
    storage.delete(["data/ab/cd", "data/ab/none", "data/ab/ef"])
    assert not storage.has("data/ab/cd")
    assert leftovers(storage) == []


def test_no_size_is_believed(storage: LocalStorage) -> None:
    storage.put("data/ab/cd", b"four")
    with pytest.raises(StorageError, match="exceeds the limit of 3 bytes"):
        storage.get("data/ab/cd", limit=3)


def test_the_manifest_is_safe_before_it_has_its_name(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        calls.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def record_rename(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    storage.put(".cvmfspublished", b"manifest")
    storage.put("data/ab/cd", b"an object, whose turn is ``flush``")
    assert calls == ["sync file", "rename", "sync directory", "rename"]


def test_a_file_that_cannot_be_written_leaves_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such directory"):
        storage.put("data/none/cd", b"one")
    with pytest.raises(StorageError, match="no such directory"):
        storage.put_file("data/ab/cd", tmp_path / "none")
    assert leftovers(storage) == []


def test_one_publisher_at_a_time(storage: LocalStorage) -> None:
    other = LocalStorage(storage.directory)
    with storage.lock(wait=0):
        start = time.monotonic()
        with pytest.raises(BusyError, match="another publisher is using"), other.lock(wait=0.5):
            pass
        assert time.monotonic() - start >= 0.5
    with other.lock(wait=0):
        pass


def test_a_publisher_waits_for_the_other(storage: LocalStorage) -> None:
    entered = threading.Event()

    def hold() -> None:
        with LocalStorage(storage.directory).lock(wait=0):
            entered.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(5)
        with storage.lock(wait=10):
            pass
    finally:
        thread.join()


def test_what_a_dead_publisher_left_is_cleared(storage: LocalStorage) -> None:
    (storage.directory / "data/txn/123.4.5").write_bytes(b"half")
    with storage.lock(wait=0):
        assert leftovers(storage) == []


def test_the_lock_of_a_dead_publisher_is_free(storage: LocalStorage) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from cvmfs_graphdriver.publisher.storage.local import LocalStorage\n"
        "with LocalStorage(Path(sys.argv[1])).lock(wait=0):\n"
        "    print('locked', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, storage.directory], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(BusyError), storage.lock(wait=0):
            pass
        process.kill()
    with storage.lock(wait=0):
        pass


def test_it_can_be_opened_by_its_definition(storage: LocalStorage) -> None:
    storage.put("data/ab/cd", b"one")
    again = open_storage(storage.definition)
    assert again.get("data/ab/cd", limit=3) == b"one"
    assert again.definition == storage.definition == f"local,{storage.location}/data/txn,{storage.location}"


@pytest.mark.parametrize("text", ["", "local", "local,/tmp", "local,/tmp,relative", "ftp,/tmp,/srv"])
def test_other_definitions_are_refused(text: str) -> None:
    with pytest.raises(StorageError, match="is not a valid storage"):
        open_storage(text)
