"""``cvmfs-graphdriver publisher serve``: publish layers from a bucket as they are uploaded."""

import logging
import signal
from pathlib import Path

import click

from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options
from cvmfs_graphdriver.conversion.publisher_service import PublisherService, running_service
from cvmfs_graphdriver.conversion.uploads import LayerUploads
from cvmfs_graphdriver.publisher.storage.bucket import Bucket
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

__all__ = ["command"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


@click.command("serve")
@repository_options
@click.option(
    "--uploads",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="File with the CVMFS_S3_* settings of the bucket for uploads, which is created if missing.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=3000,
    show_default=True,
    help="The port to listen on; 0: any free one.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look for uploads; any POST triggers it at once.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10_240,
    show_default=True,
    metavar="MIB",
    help="Maximum size of an upload.",
)
def command(
    fqrn: str,
    storage: Path | None,
    keys: Path,
    uploads: Path,
    host: str,
    port: int,
    interval: float,
    limit: int,
) -> None:
    """Publish layers that nodes upload as /layers/SHA256 of REPO, until Ctrl-C.

    An upload is a tar, plain or compressed, named after its SHA-256; it is deleted once it is published or
    refused. GET /status/SHA256 answers done, publishing, unknown, or failed with the reason. Prints the URL
    when it is ready.
    """
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    bucket = Bucket(S3Settings.load(uploads))
    bucket.make()
    layers = LayerUploads(bucket, open_repository(fqrn, storage, keys), limit=limit << 20)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the service's threads inherit it
    try:
        with running_service(PublisherService(layers, interval=interval), host, port) as url:
            click.echo(url)
            signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
