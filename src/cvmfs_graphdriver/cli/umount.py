"""``cvmfs-graphdriver umount``: unmount repositories."""

from pathlib import Path

import click

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at

__all__ = ["command"]


@click.command("umount")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-l", "--lazy", is_flag=True, help="Detach at once; unmounted when no longer in use.")
def command(directories: tuple[Path, ...], *, lazy: bool) -> None:
    """Unmount the repositories at DIRECTORIES."""
    for directory in directories:
        place = directory.absolute()
        found = mount_at(place)
        if found is None or found.filesystem != b"fuse.cvmfs":
            raise MountError(f"no repository is mounted at {place}")
        umount(place, UmountFlag.NOFOLLOW | (UmountFlag.DETACH if lazy else UmountFlag.NONE))
