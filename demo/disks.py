"""Small private disks: an ext4 in a file, on a loop device. Needs root.

Owns: making, mounting and removing one. Must not know: what it is for.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BLOCK", "loop_disk"]

BLOCK = 4096
"""Block size in bytes, whatever the size of the disk."""


@contextmanager
def loop_disk(place: Path, size: int) -> Iterator[Path]:
    """A new ext4 of ``size`` bytes, mounted at ``place``, which is created; its file lies beside that."""
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(size)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK), image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        _write_through(image)
        yield place
    finally:
        # Lazily, since something that a test left there may still be in use.
        subprocess.run(["umount", "--lazy", place], check=True)


def _write_through(image: Path) -> None:
    """Bypass the page cache of the file system below, if possible: a real disk is not cached twice."""
    listed = ["losetup", "--noheadings", "--output", "NAME", "--associated", str(image)]
    device = subprocess.run(listed, check=True, stdout=subprocess.PIPE).stdout.strip()
    subprocess.run(["losetup", "--direct-io=on", device], check=False, stderr=subprocess.DEVNULL)
