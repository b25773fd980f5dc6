"""What planes make of layers, made before anybody asks: between the pull of an image and its first start.

Owns: when that is done, one chain of layers after the other, in a thread. What fails here fails again, and is
reported, when it is needed. Must not know: what a plane makes, who pulls.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.planes.plane import LayerPath, Plane

__all__ = ["Foresight"]

_log = logging.getLogger(__name__)

_PAUSE: Final = 0.1
"""Seconds after which a chain is taken to be a whole image: its layers come in quick succession."""
_MOST: Final = 100
"""Chains that wait; the oldest is forgotten."""
_PATIENCE: Final = 5.0
"""Seconds to wait for the thread to end, and for something to do."""


class Foresight:
    """Lets ``plane`` prepare chains of layers in a thread."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._changed = threading.Condition()
        self._expected: dict[tuple[LayerPath, ...], float] = {}
        self._ending = False
        self._thread: threading.Thread | None = None

    def expect(self, layers: Sequence[LayerPath]) -> None:
        """These layers, topmost first, will be needed soon; a chain that ends below the topmost will not."""
        chain = tuple(dict.fromkeys(layers))
        with self._changed:
            self._expected.pop(chain[1:], None)
            self._expected[chain] = time.monotonic() + _PAUSE
            if len(self._expected) > _MOST:
                self._expected.pop(next(iter(self._expected)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="foresight", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Forget what is expected, and end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _work(self) -> None:
        while chain := self._next():
            try:
                self._plane.foresee(chain)
                _log.debug("prepared %d layers of %s", len(chain), chain[0].fqrn)
            except (CvmfsGraphdriverError, OSError) as error:
                _log.debug("cannot prepare the layers of %s: %s", chain[0].fqrn, error)

    def _next(self) -> tuple[LayerPath, ...]:
        """The next chain that is whole; empty at the end."""
        with self._changed:
            while not self._ending:
                chain, due = next(iter(self._expected.items()), ((), 0.0))
                left = due - time.monotonic() if chain else _PATIENCE
                if chain and left <= 0:
                    del self._expected[chain]
                    return chain
                self._changed.wait(left)
        return ()
