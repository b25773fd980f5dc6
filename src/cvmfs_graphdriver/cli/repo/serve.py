"""``cvmfs-graphdriver repo serve``: serve repositories over HTTP for testing; use nginx in production."""

import signal
from pathlib import Path

import click

from cvmfs_graphdriver.publisher.server import serve

__all__ = ["command"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


@click.command("serve")
@click.argument(
    "directory", type=click.Path(path_type=Path, file_okay=False), default=Path("/srv"), metavar="[DIR]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port to listen on; 0: any free one.",
)
def command(directory: Path, host: str, port: int) -> None:
    """Serve the files below DIR (default: /srv) until Ctrl-C: REPO in DIR/cvmfs/REPO is at URL/cvmfs/REPO.

    Prints the URL when it is ready. Anyone who can reach the port can read everything below DIR.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the server's threads inherit it
    try:
        with serve(directory, host=host, port=port) as served:
            click.echo(served.url)
            signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
