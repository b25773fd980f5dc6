"""Threads that do not end are left alone."""

import threading

import pytest

from cvmfs_graphdriver.kernel.waiting import deadline
from cvmfs_graphdriver.kernel.waiting.deadline import end


def test_a_thread_that_does_not_end_is_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "_ENDING", 0.1)
    event = threading.Event()
    thread = threading.Thread(target=event.wait, name="stubborn")
    thread.start()
    end(thread)
    assert [record.getMessage() for record in caplog.records] == ["the thread stubborn does not end"]
    caplog.clear()
    event.set()
    thread.join()
    end(thread)
    assert not caplog.records
