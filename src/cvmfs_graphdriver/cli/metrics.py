"""``cvmfs-graphdriver metrics``: a metrics endpoint for Prometheus."""

import signal
from http import HTTPStatus
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.running import find_sockets, running_clients
from cvmfs_graphdriver.http.server import Handler, HttpServer, running
from cvmfs_graphdriver.http.server import listen as open_listener

__all__ = ["command"]


@click.command("metrics")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9869",
    show_default=True,
    help="Address to listen on.",
)
@etc_option
def command(listen: str, etc: Path) -> None:
    """Serve the metrics of all repositories mounted on this machine, at /metrics, until interrupted."""
    host, _, port = listen.rpartition(":")
    if not port.isdigit() or not host:
        raise click.UsageError(f"--listen {listen!r} is not HOST:PORT")
    try:
        server = HttpServer(open_listener(host, int(port)), type("Handler", (_MetricsHandler,), {"etc": etc}))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {listen}: {error.strerror}") from error
    with running(server):
        click.echo(f"metrics at http://{host}:{server.port}/metrics", err=True)
        signal.pause()


class _MetricsHandler(Handler):
    """Asks all clients whenever it is asked."""

    etc: Path

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.answer(HTTPStatus.NOT_FOUND, b"", {})
            return
        text = metrics_text(running_clients(find_sockets(self.etc)))
        self.answer(HTTPStatus.OK, text, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
