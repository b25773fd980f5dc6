"""The times of directories, with a plain mapping of paths as the model."""

import os

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.layers.times import DirectoryTimes

paths = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4).map(b"/".join)
steps = st.lists(st.tuples(st.sampled_from(["put", "forget"]), paths), max_size=40)


@given(steps)
def test_what_was_replaced_is_forgotten_with_everything_below(taken: list[tuple[str, bytes]]) -> None:
    times, model = DirectoryTimes(), dict[bytes, int]()
    for number, (step, path) in enumerate(taken):
        if step == "put":
            times.put(path, number)
            model[path] = number
        else:
            times.forget(path)
            model = {at: time for at, time in model.items() if not (at + b"/").startswith(path + b"/")}
    found = list(times)
    assert dict(found) == model
    assert len(found) == len(model)
    places = {path: place for place, (path, _) in enumerate(found)}
    assert all(places.get(os.path.dirname(path), -1) < place for path, place in places.items())


def test_deep_directories_are_no_problem() -> None:
    times = DirectoryTimes()
    path = b"/".join([b"d"] * 32_000)
    times.put(path, 1)
    assert list(times) == [(path, 1)]
    times.forget(b"d")
    assert list(times) == []
