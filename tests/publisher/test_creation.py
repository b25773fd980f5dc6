"""Creating repositories: what is there afterwards, and what is not after a failure."""

import subprocess
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.errors import PublisherError, StorageError
from cvmfs_graphdriver.publisher.local import LocalStorage


def test_a_new_repository_is_laid_out_like_a_stock_one(tmp_path: Path) -> None:
    repository = create_repository("new.example.org", LocalStorage.create(tmp_path / "r"), tmp_path / "keys")
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {".cvmfs_master_replica", ".cvmfspublished", ".cvmfsreflog", ".cvmfswhitelist", "data"}
    assert {path.name for path in (tmp_path / "r/data").iterdir()} == {f"{n:02x}" for n in range(256)} | {
        "txn"
    }
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "keys").iterdir()}
    assert modes == {
        "new.example.org.masterkey": "0o400",
        "new.example.org.key": "0o400",
        "new.example.org.crt": "0o444",
        "new.example.org.pub": "0o444",
    }
    assert repository.manifest().revision == 1


@pytest.mark.parametrize("fqrn", ["", "nodots", "../x.y", "a b.c", "x" * 60 + ".org", "a..b"])
def test_bad_names_are_refused_before_anything_is_made(fqrn: str, tmp_path: Path) -> None:
    storage = LocalStorage.create(tmp_path / "r")
    with pytest.raises(PublisherError, match="cannot name a repository"):
        create_repository(fqrn, storage, tmp_path / "keys")
    assert not (tmp_path / "keys").exists()


def test_a_second_one_at_the_same_place_is_refused(tmp_path: Path) -> None:
    storage = LocalStorage.create(tmp_path / "r")
    create_repository("new.example.org", storage, tmp_path / "keys")
    with pytest.raises(PublisherError, match="already"):
        create_repository("other.example.org", storage, tmp_path / "keys")
    with pytest.raises(StorageError, match="not empty"):
        LocalStorage.create(tmp_path / "r")


@pytest.mark.root
def test_a_full_disk_leaves_no_keys_behind(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", disk], check=True)
    try:
        storage = LocalStorage.create(disk / "r")
        (disk / "filler").write_bytes(bytes(4096))
        with pytest.raises(StorageError, match="disk is full"):
            create_repository("new.example.org", storage, tmp_path / "keys")
        assert list((tmp_path / "keys").iterdir()) == []
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        create_repository("new.example.org", storage, tmp_path / "keys")
    finally:
        subprocess.run(["umount", disk], check=True)
