"""Options and arguments that several commands of docker2cvmfs share."""

from typing import Any

import click

from cvmfs_graphdriver.cli.options import keys_option as any_keys_option
from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.platform import Platform

__all__ = ["image_argument", "images_argument", "keys_option", "platform_option", "repository_option"]


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
