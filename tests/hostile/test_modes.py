"""Keys and storage under a careless umask, and under a narrow one: modes are set, not left."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction

FQRN = "modes.example.org"


@pytest.fixture(params=[0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    top, keys = tmp_path / "srv", tmp_path / "etc/keys"
    repository = create_repository(FQRN, LocalStorage.create(top / "cvmfs" / FQRN), keys)
    with Transaction(repository) as transaction:
        transaction.write_file(b"/file", b"content")
        transaction.publish()
    repository.storage.put_file("data/00/copy", keys / f"{FQRN}.pub")
    directories = [keys.parent, keys, top, *(path for path in top.rglob("*") if path.is_dir())]
    files = [path for path in top.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(directories) > 256
    assert {_mode(path) for path in directories} == {0o755}
    assert len(files) > 5
    assert {_mode(path) for path in files} == {0o644}
    assert _mode(top / "cvmfs" / FQRN / "data/txn/.lock") & 0o022 == 0
    assert {path.suffix: _mode(path) for path in keys.iterdir()} == {
        ".masterkey": 0o400,
        ".key": 0o400,
        ".crt": 0o444,
        ".pub": 0o444,
    }
