"""What the commands that publish share: repository, layout and format of thin images.

Owns: the options and their meaning. Must not know: which images.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cvmfs_graphdriver.cli.docker2cvmfs.options import keys_option, platform_option
from cvmfs_graphdriver.cli.options import settings_option, storage_option
from cvmfs_graphdriver.cli.repo.options import open_repository
from cvmfs_graphdriver.conversion.layout import DirectoryLayout, LayerLayout, UnpackedLayout
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.thin_image import ManifestFormat
from cvmfs_graphdriver.publisher.repository import Repository

__all__ = ["Publishing", "publishing_options", "sub_option"]


@dataclass(frozen=True, slots=True)
class Publishing:
    """The options that ``publishing_options`` adds to a command."""

    storage: Path | None
    keys: Path
    settings: Path | None
    layout: LayerLayout
    form: ManifestFormat
    platform: Platform | None

    def open(self, fqrn: str) -> Repository:
        """Open the existing repository with its keys; raises PublisherError, KeyringError."""
        return open_repository(fqrn, self.storage, self.keys, self.settings)


sub_option = click.option(
    "-s", "--sub", default="layers/", show_default=True, metavar="PATH", help="The directory for layers."
)
_OPTIONS = (
    sub_option,
    click.option(
        "--unpacked-layout",
        is_flag=True,
        help="Use the layout of unpacked.cern.ch: /.layers/XX/DIGEST/layerfs.",
    ),
    storage_option,
    keys_option,
    settings_option,
    click.option(
        "--format",
        "form",
        type=click.Choice([form.value for form in ManifestFormat]),
        default=ManifestFormat.DOCKER.value,
        show_default=True,
        help="The format of thin images; only oci has annotations.",
    ),
    platform_option,
)


def publishing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which receives them as the argument ``publishing``."""

    @functools.wraps(command)
    def with_publishing(
        *arguments: Any,
        sub: str,
        storage: Path | None,
        keys: Path,
        settings: Path | None,
        form: str,
        platform: Platform | None,
        unpacked_layout: bool,
        **options: Any,
    ) -> None:
        layout: LayerLayout = UnpackedLayout() if unpacked_layout else DirectoryLayout.parse(sub)
        publishing = Publishing(storage, keys, settings, layout, ManifestFormat(form), platform)
        command(*arguments, publishing=publishing, **options)

    decorated: Callable[..., None] = with_publishing
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
