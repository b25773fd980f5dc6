"""One image in two ways: pulled and unpacked, and lazily; what each costs, as figures and as a table.

Owns: what is measured, and how it is shown. Must not know: how the image becomes lazy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.table import Table

from demo.daemons import DockerClient
from demo.stage import Stage

__all__ = ["Comparison", "Performance", "disk_use", "mega", "perform"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Performance:
    """Figures for one way, from the registry to the image's output; times in seconds."""

    output: bytes
    pull: float
    first_start: float
    second_start: float
    fetched_files: int
    fetched_bytes: int
    """From the repository, until the end of the first run."""


def perform(engine: DockerClient, here: Stage, image: str, command: list[str]) -> Performance:
    """Pull an image and run it twice."""
    files, size = here.fetched()
    _, pull = _timed(lambda: engine.docker("pull", "--quiet", image))
    output, first = _timed(lambda: engine.run(image, *command))
    files_after, size_after = here.fetched()
    _, second = _timed(lambda: engine.run(image, *command))
    return Performance(output, pull, first, second, files_after - files, size_after - size)


def _timed(action: Callable[[], _T]) -> tuple[_T, float]:
    start = time.monotonic()
    result = action()
    return result, time.monotonic() - start


def disk_use(directory: Path) -> int:
    """Bytes that the files below a directory occupy; one with several names counts once."""
    found = [path.lstat() for path in directory.rglob("*")]
    return sum({(status.st_dev, status.st_ino): status.st_blocks * 512 for status in found}.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two ways, with their names, what each leaves on the disk, and what is compared."""

    title: str
    names: tuple[str, str]
    layers: int
    compressed: int
    normal: Performance
    lazy: Performance
    disk: tuple[str, str]

    @property
    def agree(self) -> bool:
        """Whether the output was the same."""
        return self.normal.output == self.lazy.output

    def table(self) -> Table:
        """The figures."""
        title = f"{self.title}, {self.layers} layers, {mega(self.compressed)} compressed"
        table = Table(title=title, title_justify="left")
        for heading in ("", *self.names):
            table.add_column(heading, justify="right" if heading else "left")
        both = (self.normal, self.lazy)
        share = f"{self.lazy.fetched_bytes / self.compressed:.1%}" if self.compressed else "-"
        table.add_row("fetched until the command ended", mega(self.compressed), mega(self.lazy.fetched_bytes))
        table.add_row("  share of the compressed bytes", "100 %", share.replace("%", " %"))
        table.add_row("  files", f"{self.layers} layers", str(self.lazy.fetched_files))
        table.add_row("pull", *(f"{each.pull:.1f} s" for each in both))
        table.add_row("first start, until it ended", *(f"{each.first_start:.1f} s" for each in both))
        table.add_row(
            "cold: pull and first start",
            *(f"{each.pull + each.first_start:.1f} s" for each in both),
            style="bold",
        )
        table.add_row("second start", *(f"{each.second_start:.1f} s" for each in both))
        table.add_row("on the node's disk", *self.disk)
        table.add_row("output", "the same" if self.agree else "DIFFERENT", "")
        return table


def mega(count: int) -> str:
    """A size for people."""
    return f"{count / 1e6:.1f} MB"
