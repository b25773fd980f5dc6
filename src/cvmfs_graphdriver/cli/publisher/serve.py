"""``cvmfs-graphdriver publisher serve``: publish layers from a bucket as they are uploaded."""

import logging
import signal
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import settings_option
from cvmfs_graphdriver.cli.repo.options import open_repository, repository_options
from cvmfs_graphdriver.conversion.publisher_service import PublisherService, running_service
from cvmfs_graphdriver.conversion.uploads import LayerUploads, UploadLimits
from cvmfs_graphdriver.kernel.logline import log_to_terminal
from cvmfs_graphdriver.publisher.storage.bucket import Bucket
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

__all__ = ["command"]

_TOKEN_LIMIT = 4096
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
@settings_option
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
    help="How often to look for uploads; a POST request triggers it at once.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with the token that POST requests must present as 'Authorization: Bearer TOKEN'; without it, "
    "only this machine may send them.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10_240,
    show_default=True,
    metavar="MIB",
    help="Maximum size of an upload.",
)
@click.option(
    "--unpacked-limit",
    type=click.IntRange(min=1),
    default=40_960,
    show_default=True,
    metavar="MIB",
    help="Maximum size of an unpacked upload.",
)
@click.option(
    "--entry-limit",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    metavar="COUNT",
    help="Maximum number of files, directories and links in an upload.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long unpacking an upload may take.",
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
    token_file: Path | None,
    limit: int,
    unpacked_limit: int,
    entry_limit: int,
    time_limit: float,
) -> None:
    """Publish layers that nodes upload as /layers/SHA256 of REPO, until Ctrl-C.

    An upload is a tar, plain or compressed, named after its SHA-256; it is deleted once it is published or
    refused. GET /status/SHA256 answers done, publishing, unknown, or failed with the reason. Prints the URL
    when it is ready.
    """
    log_to_terminal("%(levelname)s %(message)s", logging.INFO)
    limits = UploadLimits(limit << 20, unpacked_limit << 20, entry_limit, time_limit)
    bucket = Bucket(S3Settings.load(uploads))
    bucket.make()
    token = _read_token(token_file) if token_file else ""
    layers = LayerUploads(bucket, open_repository(fqrn, storage, keys, settings), limits)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the service's threads inherit it
    try:
        with running_service(PublisherService(layers, interval=interval, token=token), host, port) as url:
            click.echo(url)
            signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read_token(file: Path) -> str:
    """The only line of a file. Raises click.UsageError: it cannot be read, or has no such line."""
    try:
        token = file.read_text()[:_TOKEN_LIMIT].strip()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"cannot read the token in {file}: {error}") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise click.UsageError(f"{file} does not contain a token: one line of printable ASCII without spaces")
    return token
