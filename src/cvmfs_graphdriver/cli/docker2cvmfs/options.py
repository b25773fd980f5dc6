"""Options and arguments that several commands of docker2cvmfs share."""

from typing import Any

import click

from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.platform import Platform

__all__ = ["image_argument", "platform_option"]


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
platform_option = click.option(
    "--platform",
    type=_PlatformType(),
    metavar="OS/ARCH",
    help="Take the image for this platform, e.g. linux/arm64 (default: this machine's).",
)
