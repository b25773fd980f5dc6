"""``cvmfs-graphdriver metrics``: a metrics endpoint for Prometheus."""

import signal
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.metrics_server import metrics_server
from cvmfs_graphdriver.client.administration.running import find_sockets, running_clients
from cvmfs_graphdriver.http.server import running

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
        server = metrics_server(host, int(port), lambda: metrics_text(running_clients(find_sockets(etc))))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {listen}: {error.strerror}") from error
    with running(server):
        click.echo(f"metrics at http://{host}:{server.port}/metrics", err=True)
        signal.pause()
