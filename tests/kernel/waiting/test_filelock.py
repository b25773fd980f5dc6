"""Locks that are not waited for for ever."""

import errno
import fcntl
import threading
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.waiting import filelock
from cvmfs_graphdriver.kernel.waiting.filelock import lock


def test_a_lock_is_got_when_it_is_free(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as one, (tmp_path / "f").open("rb") as other:
        lock(one.fileno(), fcntl.LOCK_EX, "f")
        release = threading.Timer(0.3, fcntl.flock, (one, fcntl.LOCK_UN))
        release.start()
        began = time.monotonic()
        lock(other.fileno(), fcntl.LOCK_SH, "f")
        assert 0.2 < time.monotonic() - began < 5
        release.join()


def test_one_that_is_never_free_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock, "_PATIENCE", 0.1)
    with (tmp_path / "f").open("wb") as one, (tmp_path / "f").open("rb") as other:
        lock(one.fileno(), fcntl.LOCK_EX, "f")
        with pytest.raises(OSError, match=r"has had it locked for 0\.1 s") as caught:
            lock(other.fileno(), fcntl.LOCK_SH, "f")
        assert caught.value.errno == errno.ETIMEDOUT
