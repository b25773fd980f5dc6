"""Locks by name: one holder each, and nothing left."""

import threading

from cvmfs_graphdriver.layers.locks import NamedLocks


def test_one_at_a_time_for_each_name() -> None:
    locks = NamedLocks()
    inside = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0}
    pause = threading.Event()

    def work(name: str) -> None:
        for _ in range(50):
            with locks.hold(name):
                inside[name] += 1
                most[name] = max(most[name], inside[name])
                pause.wait(0.0001)
                inside[name] -= 1

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab" * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == {"a": 1, "b": 1}
    assert locks._used == {}


def test_names_do_not_wait_for_each_other() -> None:
    locks = NamedLocks()
    with locks.hold("a"), locks.hold("b"):
        assert set(locks._used) == {"a", "b"}
    assert locks._used == {}
