"""What is prepared before it is needed: whole images, one after the other, whatever fails."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Queue
from threading import Event

from cvmfs_graphdriver.planes.errors import PlaneError
from cvmfs_graphdriver.planes.foresight import Foresight
from cvmfs_graphdriver.planes.plane import LayerPath, Lower

BASE, MIDDLE, TOP, OTHER = (LayerPath("planes.example.org", b"/" + name) for name in (b"a", b"b", b"c", b"d"))
PATIENCE = 20


class Plane:
    """Notes what it is asked to prepare; that ``OTHER`` cannot be had, it knows after a while."""

    name = "none"
    why = "nothing is mounted"

    def __init__(self) -> None:
        self.prepared: Queue[list[LayerPath]] = Queue()
        self.known = Event()

    def foresee(self, layers: Sequence[LayerPath]) -> None:
        self.prepared.put(list(layers))
        if OTHER in layers:
            self.known.wait(PATIENCE)
            raise PlaneError("there is no such layer")

    @contextmanager
    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> Iterator[Lower]:
        del layers, bottom
        yield Lower([])

    def repository(self, layer: LayerPath) -> Path:
        return Path(layer.fqrn)

    def release(self, fqrn: str) -> None:
        del fqrn

    def answers(self, fqrn: str) -> bool:
        return bool(fqrn)

    def status(self, problems: Sequence[str] = ()) -> list[tuple[str, str]]:
        del problems
        return []


def test_only_whole_images_are_prepared() -> None:
    plane = Plane()
    with closing(Foresight(plane)) as foresight:
        foresight.expect([OTHER])
        assert plane.prepared.get(timeout=PATIENCE) == [OTHER]
        for layers in ([BASE], [MIDDLE, BASE], [TOP, MIDDLE, BASE]):
            foresight.expect(layers)
        plane.known.set()
        assert plane.prepared.get(timeout=PATIENCE) == [TOP, MIDDLE, BASE]
    assert plane.prepared.empty()


def test_a_layer_that_occurs_twice_is_named_once() -> None:
    plane = Plane()
    with closing(Foresight(plane)) as foresight:
        foresight.expect([BASE, MIDDLE, BASE])
        assert plane.prepared.get(timeout=PATIENCE) == [BASE, MIDDLE]
