"""Pulling, starting and building, against stock overlay2 of the same dockerd version in the same run."""

import tempfile
from pathlib import Path

from benchmarks.pairs import measure
from demo.daemons import DockerEngine, end_on_signals, plugin_tarball
from demo.images import COMMAND, build_image, push_image
from demo.stage import stage

_PROJECT = Path(__file__).resolve().parent.parent


def run() -> list[dict[str, object]]:
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

        pairs = [
            measure("pull, normal image", lambda: pull(ours, normal), lambda: pull(stock, normal), runs=3),
            measure("start, normal image", lambda: ours.run(normal), lambda: stock.run(normal)),
            measure(
                "pull and first start, thin image against normal image on overlay2",
                lambda: first_run(ours, thin),
                lambda: first_run(stock, normal),
                runs=3,
            ),
            measure("warm start, thin image", lambda: ours.run(thin), lambda: stock.run(normal), runs=9),
        ]
    return [pair.figures() for pair in pairs]
