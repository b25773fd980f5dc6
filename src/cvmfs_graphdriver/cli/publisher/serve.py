"""``cvmfs-graphdriver publisher serve``: layers out of a bucket into a repository, as they come."""

import logging
import signal
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import settings_option
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
    help="CVMFS_S3_* of the bucket that nodes upload to; it is made if it is not there.",
)
@settings_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=3000, show_default=True, help="0: any free one."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look for uploads; POST anything to be faster.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10_240,
    show_default=True,
    metavar="MIB",
    help="The size that an upload may have.",
)
def command(
    fqrn: str,
    storage: Path | None,
    keys: Path,
    uploads: Path,
    settings: Path | None,
    host: str,
    port: int,
    interval: float,
    limit: int,
) -> None:
    """Publish layers that nodes upload as /layers/SHA256 of REPO, until Ctrl-C.

    An upload is a tar, plain or compressed, named by its SHA-256; it is deleted when it is published or
    refused. GET /status/SHA256 answers done, publishing, unknown or failed with the reason. Prints the URL
    when it is ready.
    """
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    bucket = Bucket(S3Settings.load(uploads))
    bucket.make()
    layers = LayerUploads(bucket, open_repository(fqrn, storage, keys, settings), limit=limit << 20)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the service's threads inherit it
    try:
        with running_service(PublisherService(layers, interval=interval), host, port) as url:
            click.echo(url)
            signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
