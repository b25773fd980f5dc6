"""``cvmfs-graphdriver metrics``: a metrics endpoint for Prometheus."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.running import find_sockets, running_clients

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
        server = _Server((host, int(port)), etc)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {listen}: {error.strerror}") from error
    with server:
        click.echo(f"metrics at http://{host}:{server.server_address[1]}/metrics", err=True)
        server.serve_forever()


class _Server(ThreadingHTTPServer):
    """Asks all running clients on each request."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], etc: Path) -> None:
        super().__init__(address, _Handler)
        self.etc = etc


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        text = metrics_text(running_clients(find_sockets(self.server.etc)))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""
