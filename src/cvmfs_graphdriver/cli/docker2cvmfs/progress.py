"""Progress on the terminal: a bar for every layer, with rate and remaining time."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cvmfs_graphdriver.conversion.progress import Progress
from cvmfs_graphdriver.oci.image.model import ImageLayer

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["watch"]


class _Silence:
    """Progress that nobody watches."""

    def begin(self, name: str, layers: Sequence[ImageLayer]) -> None:
        pass

    def advance(self, layer: ImageLayer, count: int) -> None:
        pass

    def finish(self, layer: ImageLayer) -> None:
        pass


class _Terminal:
    """Progress bars on a terminal."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._tasks: dict[ImageLayer, TaskID] = {}

    def begin(self, name: str, layers: Sequence[ImageLayer]) -> None:
        if layers:
            self._bars.console.print(f"{name}: {len(layers)} layers to fetch", highlight=False, markup=False)
        self._tasks = {
            layer: self._bars.add_task(
                layer.descriptor.digest.hex[:12], total=layer.descriptor.size, start=False
            )
            for layer in layers
        }

    def advance(self, layer: ImageLayer, count: int) -> None:
        task = self._tasks[layer]
        self._bars.start_task(task)
        self._bars.advance(task, count)

    def finish(self, layer: ImageLayer) -> None:
        self._bars.update(self._tasks[layer], completed=layer.descriptor.size)


@contextmanager
def watch() -> Iterator[Progress]:
    """Show the progress of a conversion if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield _Silence()
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(binary_units=True),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Terminal(bars)
