"""Servers of repositories that never answer: the driver does not wait for them for ever."""

import os
import signal
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.waiting.deadline import within
from cvmfs_graphdriver.layers import mounts as layer_mounts
from cvmfs_graphdriver.planes import fuse_plane
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from tests.layers.test_mounts import Case
from tests.support.entries import file
from tests.support.mounts import end, pids_serving
from tests.support.published import FQRN, published


def test_results_and_failures_are_passed_on() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


def test_a_call_that_waits_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        within(0.1, lambda: os.open(tmp_path / "fifo", os.O_RDONLY))
    assert time.monotonic() - began < 5
    os.close(os.open(tmp_path / "fifo", os.O_WRONLY))


@pytest.mark.root
def test_a_silent_repository_counts_as_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_plane, "_PATIENCE_OF_CALLERS", 0.5)
    with published(tmp_path / "repository") as stored:
        stored.publish({b"/layers": [file("/x", b"y")]})
        plane = FusePlane(tmp_path / "mnt", stored.etc, {})
        target = plane.mount_point(FQRN)
        server = pids_serving(target)[-1]
        try:
            os.kill(server, signal.SIGSTOP)
            assert not plane.answers(FQRN)
            os.kill(server, signal.SIGCONT)
            assert plane.answers(FQRN)
        finally:
            os.kill(server, signal.SIGKILL)
            end(target)


class Slow:
    """In place of the module that gives the name to look up."""

    def token_hex(self, _: int) -> str:
        time.sleep(60)
        return "x"


@pytest.mark.root
def test_the_start_of_the_driver_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path)
    case.base()
    case.store.create("top", "base")
    merged = case.mounts.get("top")
    monkeypatch.setattr(layer_mounts, "_PATIENCE", 0.2)
    monkeypatch.setattr("cvmfs_graphdriver.layers.mounts.secrets", Slow())
    began = time.monotonic()
    case.start()
    assert time.monotonic() - began < 5
    monkeypatch.undo()
    assert not merged.exists(), "unmounted, since it does not answer"
