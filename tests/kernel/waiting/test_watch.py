"""Waits that take long are told, once for each time that they have doubled."""

import threading
import time

import pytest

from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.kernel.waiting.watch import LONG, Busy, Watch, waiting


def test_what_a_thread_waits_for_is_told_again_when_the_time_has_doubled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch()
    now = time.monotonic()
    told = []
    with waiting("a server"):
        with waiting("an answer"):
            for second in range(45):
                caplog.clear()
                watch.look(now + second)
                told += [(second, record.getMessage()) for record in caplog.records]
        caplog.clear()
        watch.look(now + 100)
        (record,) = caplog.records
        assert "MainThread has been waiting for 100 s for a server" in record.getMessage()
    assert [second for second, _ in told] in ([11, 22, 44], [10, 20, 40])
    assert all("s for an answer" in text for _, text in told)
    caplog.clear()
    watch.look(now + 1000)
    assert not caplog.records


def test_a_thread_that_says_nothing_is_shown_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    lock, begun = threading.Lock(), threading.Event()

    def forever() -> int:
        begun.set()
        with lock:
            return 1

    with lock:
        thread = threading.Thread(
            target=lambda: LeastRecentlyUsed[object, int](4).get(Slow(forever)),
            name="reader",
        )
        thread.start()
        assert begun.wait(10)
        assert thread.ident is not None
        watch = Watch()
        watch.tasks = lambda: [Busy(thread.ident or 0, 7, "READ of inode 5")]
        watch.look(0)
        watch.look(LONG + 1)
    thread.join()
    (record,) = caplog.records
    assert record.getMessage().startswith("READ of inode 5 has been waiting for 11 s in get (client/lru.py:")


def test_another_task_of_the_same_thread_is_another_wait(caplog: pytest.LogCaptureFixture) -> None:
    number = [0]
    watch = Watch()
    watch.tasks = lambda: [Busy(threading.get_ident(), number[0], "READ of inode 5")]
    for second in range(0, 100, 5):
        number[0] = second // 10
        watch.look(second)
    assert not caplog.records


class Slow:
    """A key whose hash waits."""

    def __init__(self, wait: object) -> None:
        self._wait = wait

    def __hash__(self) -> int:
        return self._wait()  # type: ignore[operator, no-any-return]
