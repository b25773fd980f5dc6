"""Work that nobody waits for."""

import threading
import time

from cvmfs_graphdriver.client.objects.background import Background


def test_tasks_are_done_by_so_many_threads() -> None:
    background = Background(3, "test")
    together = threading.Barrier(3)
    names: set[str] = set()

    def task() -> None:
        together.wait(10)
        names.add(threading.current_thread().name)

    for _ in range(3):
        background.submit(task)
    deadline = time.monotonic() + 10
    while len(names) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    background.close()
    assert names == {"test 0", "test 1", "test 2"}


def test_closing_waits_for_what_was_begun_and_forgets_the_rest() -> None:
    background = Background(1, "test")
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def slow() -> None:
        begun.set()
        go_on.wait(10)
        done.append(1)

    background.submit(slow)
    for _ in range(100):
        background.submit(lambda: done.append(2))
    assert begun.wait(10)
    closer = threading.Thread(target=background.close)
    closer.start()
    time.sleep(0.05)
    assert closer.is_alive()
    go_on.set()
    closer.join(10)
    assert done == [1]
    background.submit(lambda: done.append(3))
    assert done == [1], "after the end nothing is begun"


def test_nothing_to_do_needs_no_thread() -> None:
    before = threading.active_count()
    background = Background(4, "test")
    assert threading.active_count() == before
    background.close()
