"""Pulling, starting and building, against stock overlay2 of the same dockerd version in the same run."""

import tempfile
from pathlib import Path

from benchmarks.pairs import Result, measure
from demo.daemons import DockerEngine, end_on_signals, plugin_tarball
from demo.images import COMMAND, build_image, push_image
from demo.stage import stage

_STEPS = """
RUN mkdir /made && cp -a /usr/share/doc /made/ && rm -rf /usr/share/doc
RUN find /made -name copyright -delete
"""
_PROJECT = Path(__file__).resolve().parent.parent


def run() -> list[Result]:
    layout = build_image(_PROJECT / "build" / "demo")
    with (
        tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir="/var/tmp") as scratch,
        end_on_signals(),
        stage(Path(scratch)) as set_up,
        DockerEngine(Path(scratch), "stock") as stock,
        DockerEngine(Path(scratch), "ours") as ours,
    ):
        normal, thin = f"{set_up.registry}/demo:1", f"{set_up.registry}/demo:1-thin"
        push_image(layout, normal)
        set_up.convert(normal, thin)
        stock.start("overlay2")
        ours.start_with_plugin(plugin_tarball(_PROJECT), set_up.etc)

        def pull(engine: DockerEngine, image: str) -> None:
            if engine.docker("images", "--quiet", image):
                engine.docker("rmi", image)
            engine.docker("pull", "--quiet", image)

        def first_run(engine: DockerEngine, image: str) -> None:
            pull(engine, image)
            engine.run(image, *COMMAND)

        def build(engine: DockerEngine) -> None:
            engine.docker("build", "--quiet", "--no-cache", "--tag", "built", str(context))

        context = Path(scratch) / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {normal}\n{_STEPS}")
        return [
            measure("pull, normal image", lambda: pull(ours, normal), lambda: pull(stock, normal), goal=1.15),
            measure(
                "run, normal image", lambda: ours.run(normal), lambda: stock.run(normal), runs=15, goal=1.15
            ),
            measure(
                "first run of a thin image, against that of a normal one on overlay2, pull included",
                lambda: first_run(ours, thin),
                lambda: first_run(stock, normal),
                runs=3,
            ),
            measure(
                "warm start of a thin image, against the normal one on overlay2",
                lambda: ours.run(thin),
                lambda: stock.run(normal),
                runs=15,
                goal=1.1,
            ),
            measure("build, normal image", lambda: build(ours), lambda: build(stock), goal=1.15),
        ]
