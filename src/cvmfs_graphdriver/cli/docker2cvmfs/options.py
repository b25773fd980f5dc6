"""Options and arguments that several commands of docker2cvmfs share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cvmfs_graphdriver.cli.options import keys_option as any_keys_option
from cvmfs_graphdriver.cli.options import settings_option, storage_option
from cvmfs_graphdriver.cli.repo.options import open_repository
from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.publisher.repository import Repository

__all__ = [
    "Destination",
    "destination_options",
    "image_argument",
    "images_argument",
    "keys_option",
    "platform_option",
    "repository_option",
]


class _PlatformType(click.ParamType[Platform]):
    name = "platform"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Platform:
        if isinstance(value, Platform):
            return value
        try:
            return Platform.parse(value)
        except ReferenceFormatError as error:
            self.fail(str(error), param, ctx)


image_argument = click.argument("image", metavar="IMAGE")
images_argument = click.argument("images", metavar="IMAGE…", nargs=-1)
repository_option = click.option(
    "-r", "--repository", "fqrn", metavar="REPO", required=True, help="The CernVM-FS repository."
)
keys_option = any_keys_option("The directory of its keys.")
platform_option = click.option(
    "--platform",
    type=_PlatformType(),
    metavar="OS/ARCH",
    help="Take the image for this platform, e.g. linux/arm64 (default: this machine's).",
)


@dataclass(frozen=True, slots=True)
class Destination:
    """The repository that the images of a command are for, and the platform that they are for."""

    fqrn: str
    storage: Path | None
    keys: Path
    settings: Path | None
    platform: Platform | None

    def open(self) -> Repository:
        """Open the existing repository with its keys; raises PublisherError, KeyringError."""
        return open_repository(self.fqrn, self.storage, self.keys, self.settings)


def destination_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which receives them as the argument ``destination``."""

    @functools.wraps(command)
    def with_destination(
        *arguments: Any,
        fqrn: str,
        storage: Path | None,
        keys: Path,
        settings: Path | None,
        platform: Platform | None,
        **options: Any,
    ) -> None:
        command(*arguments, destination=Destination(fqrn, storage, keys, settings, platform), **options)

    decorated: Callable[..., None] = with_destination
    for option in (platform_option, settings_option, keys_option, storage_option, repository_option):
        decorated = option(decorated)
    return decorated
