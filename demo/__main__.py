"""``make demo``: puts an image into a repository and runs it, lazily and as usual, in a Docker of its own.

Owns: the order of the steps. With Docker 28 or later the image is run unmodified with the snapshotter, with
an earlier one as a thin image with the plugin. Everything happens on loopback and in a scratch directory, and
ends with the demo. Must not know: how any part works.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from demo.comparison import Comparison, disk_use, mega, perform
from demo.containerd import OVERLAYFS, ContainerdEngine, cvmfs_snapshotter
from demo.daemons import DaemonError, DockerEngine, end_on_signals, plugin_tarball
from demo.images import COMMAND, ImageError, build_image, push_image
from demo.installation import Installation
from demo.stage import FQRN, Stage, stage

__all__ = ["main"]

_PROJECT = Path(__file__).resolve().parent.parent
_INTERRUPTED = 130
_WITHOUT_PLUGINS = 28
"""The first version of Docker without graph driver plugins."""


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


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="make demo", description="Run an image lazily, in a Docker of its own."
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
    with stage(scratch) as here:
        if image is None:
            image = f"{here.registry}/demo:1"
            steps.say("building an image of four layers from Debian packages")
            layout = build_image(_PROJECT / "build" / "demo", steps.say)
            with steps.step(f"pushing it to a registry at {here.registry}"):
                push_image(layout, image)
        if installation.version("/usr/sbin/dockerd")[0] < _WITHOUT_PLUGINS:
            compared = _with_the_plugin(here, installation, image, words, steps)
        else:
            compared = _with_the_snapshotter(here, installation, image, words, steps)
        steps.say("done; stopping everything")
    console.print(compared.table())
    sys.stdout.buffer.write(compared.lazy.output)
    if not compared.agree:
        console.print("demo: the two ways gave different output; that of the usual one is:")
        sys.stdout.buffer.write(compared.normal.output)
    sys.stdout.flush()
    return 0 if compared.agree else 1


def _with_the_snapshotter(
    here: Stage, installation: Installation, image: str, words: list[str], steps: Steps
) -> Comparison:
    """The unmodified image with our snapshotter, and with containerd's own."""
    steps.say("converting it: docker2cvmfs publish, which leaves the image as it is")
    (account,) = here.publish(image)
    with ContainerdEngine(here.scratch, "ours", installation) as ours:
        with steps.step("starting a dockerd and a containerd with the snapshotter"):
            ours.start(cvmfs_snapshotter(FQRN, here.etc))
            before = disk_use(ours.directory)
        with steps.step("running it lazily, unmodified"):
            lazy = perform(ours, here, image, words)
            kept = disk_use(ours.directory) - before
        version = ours.docker("version", "--format", "{{.Server.Version}}")
    with ContainerdEngine(here.scratch, "stock", installation) as stock:
        stock.start(OVERLAYFS)
        before = disk_use(stock.directory)
        with steps.step("running it with containerd's own snapshotter"):
            normal = perform(stock, here, image, words)
            unpacked = disk_use(stock.directory) - before
    return Comparison(
        f"{image} on Docker {version}",
        ("overlayfs", "cvmfs-snapshotter"),
        len(account["layers"]),
        account["fetched_bytes"] + account["saved_bytes"],
        normal,
        lazy,
        (mega(unpacked), mega(kept)),
    )


def _with_the_plugin(
    here: Stage, installation: Installation, image: str, words: list[str], steps: Steps
) -> Comparison:
    """A thin image and the normal one, both with the plugin."""
    thin = f"{here.registry}/demo:thin"
    steps.say("converting it: docker2cvmfs make-thin")
    account = here.convert(image, thin).account
    with DockerEngine(here.scratch, "docker", installation) as docker:
        with steps.step("starting a dockerd with the plugin as storage driver"):
            docker.start_with_plugin(plugin_tarball(_PROJECT), here.etc)
        with steps.step("running it lazily, as a thin image"):
            of_thin = perform(docker, here, thin, words)
        with steps.step("running the normal image"):
            of_normal = perform(docker, here, image, words)
        cache = disk_use(next(docker.plugin_home().glob("*/cache")))
        unpacked = int(docker.docker("image", "inspect", "--format", "{{.Size}}", image))
    return Comparison(
        image,
        ("normal image", "thin image"),
        len(account["layers"]),
        account["fetched_bytes"] + account["saved_bytes"],
        of_normal,
        of_thin,
        (mega(unpacked), f"{mega(cache)} cache"),
    )


if __name__ == "__main__":
    sys.exit(main())
