"""``make demo``: converts an image and runs it, thin and as it is, in a Docker of its own.

Owns: the order of the steps, and the table. Everything happens on loopback and in a scratch directory, and
ends with the demo. Must not know: how any part works.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from demo.daemons import DaemonError, DockerEngine, end_on_signals, plugin_tarball
from demo.images import COMMAND, ImageError, build_image, push_image
from demo.installation import Installation
from demo.stage import Stage, stage

__all__ = ["main"]

_PROJECT = Path(__file__).resolve().parent.parent
_INTERRUPTED = 130
_T = TypeVar("_T")


class Steps:
    """Reports progress, with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        seconds = time.monotonic() - self._start
        self._console.print(f"[dim]{seconds:5.1f} s[/]  {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Print what is being done, and show a spinner on a terminal until it is done."""
        self.say(text)
        with self._console.status(text):
            yield


@dataclass(frozen=True, slots=True)
class Performance:
    """Figures for one form of the image, from the registry to its output; times in seconds."""

    output: bytes
    pull: float
    first_start: float
    second_start: float
    fetched_files: int
    fetched_bytes: int
    """From the repository, until the end of the first run."""


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="make demo", description="Run an image thin, in a Docker of its own."
    )
    parser.add_argument("--image", help="an image from any registry, instead of the one that the demo builds")
    parser.add_argument("--command", help="the command to run, instead of the image's own")
    parser.add_argument("--docker-root", type=Path, help="the root directory of the Docker to use")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("demo: mounting and Docker need root", file=sys.stderr)
        return 1
    console = Console(stderr=True)
    try:
        with end_on_signals(), _scratch() as scratch:
            installation = Installation(arguments.docker_root)
            return _show(Path(scratch), installation, arguments.image, arguments.command, console)
    except KeyboardInterrupt:
        console.print("demo: interrupted; everything it started has ended")
        return _INTERRUPTED
    except (DaemonError, ImageError, CvmfsGraphdriverError) as error:
        console.print(f"demo: {error}", markup=False, highlight=False)
        return 1


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """On a disk, which /tmp may not be; with a short name, since the paths of sockets in it are limited."""
    return tempfile.TemporaryDirectory(prefix="cvmfs-demo-", dir=os.environ.get("TMPDIR", "/var/tmp"))


def _show(
    scratch: Path, installation: Installation, image: str | None, command: str | None, console: Console
) -> int:
    steps = Steps(console)
    words = shlex.split(command) if command else [] if image else list(COMMAND)
    with stage(scratch) as here, DockerEngine(scratch, "docker", installation) as docker:
        if image is None:
            image = f"{here.registry}/demo:1"
            steps.say("building an image of four layers from Debian packages")
            layout = build_image(_PROJECT / "build" / "demo", steps.say)
            with steps.step(f"pushing it to a registry at {here.registry}"):
                push_image(layout, image)
        thin = f"{here.registry}/demo:thin"
        steps.say("converting it: docker2cvmfs make-thin")
        account = here.convert(image, thin).account
        size = account["fetched_bytes"] + account["saved_bytes"]
        with steps.step("starting a dockerd with the plugin as storage driver"):
            docker.start_with_plugin(plugin_tarball(_PROJECT), here.etc)
        with steps.step("running the thin image"):
            of_thin = _perform(docker, here, thin, words)
        with steps.step("running the normal image"):
            of_normal = _perform(docker, here, image, words)
        cache = _disk_use(next(docker.plugin_home().glob("*/cache")))
        unpacked = int(docker.docker("image", "inspect", "--format", "{{.Size}}", image))
        steps.say("done; stopping everything")
    same = of_thin.output == of_normal.output
    table = _table(image, len(account["layers"]), size, unpacked, cache, of_normal, of_thin)
    console.print(table)
    sys.stdout.buffer.write(of_thin.output)
    if not same:
        console.print("demo: the two forms of the image gave different output; that of the normal one is:")
        sys.stdout.buffer.write(of_normal.output)
    sys.stdout.flush()
    return 0 if same else 1


def _perform(docker: DockerEngine, here: Stage, image: str, command: list[str]) -> Performance:
    files, size = here.fetched()
    _, pull = _timed(lambda: docker.docker("pull", "--quiet", image))
    output, first = _timed(lambda: docker.run(image, *command))
    files_after, size_after = here.fetched()
    _, second = _timed(lambda: docker.run(image, *command))
    return Performance(output, pull, first, second, files_after - files, size_after - size)


def _timed(action: Callable[[], _T]) -> tuple[_T, float]:
    start = time.monotonic()
    result = action()
    return result, time.monotonic() - start


def _disk_use(directory: Path) -> int:
    """Bytes that the files below a directory occupy."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def _table(
    name: str, layers: int, size: int, unpacked: int, cache: int, normal: Performance, thin: Performance
) -> Table:
    table = Table(title=f"{name}, {layers} layers, {_mega(size)} compressed", title_justify="left")
    for heading in ("", "normal image", "thin image"):
        table.add_column(heading, justify="right" if heading else "left")
    share = f"{thin.fetched_bytes / size:.1%}" if size else "-"
    table.add_row("fetched until the command ended", _mega(size), _mega(thin.fetched_bytes))
    table.add_row("  share of the compressed bytes", "100 %", share.replace("%", " %"))
    table.add_row("  files", f"{layers} layers", str(thin.fetched_files))
    table.add_row("pull", f"{normal.pull:.1f} s", f"{thin.pull:.1f} s")
    table.add_row("first start, until it ended", f"{normal.first_start:.1f} s", f"{thin.first_start:.1f} s")
    table.add_row(
        "cold: pull and first start",
        *(f"{each.pull + each.first_start:.1f} s" for each in (normal, thin)),
        style="bold",
    )
    table.add_row("second start", f"{normal.second_start:.1f} s", f"{thin.second_start:.1f} s")
    table.add_row("on the node's disk", _mega(unpacked), f"{_mega(cache)} cache")
    table.add_row("output", "the same" if normal.output == thin.output else "DIFFERENT", "")
    return table


def _mega(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
