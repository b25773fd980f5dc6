"""Small disks of one's own: an ext4 in a file, by a loop device. Needs root.

Owns: making one, mounting it, and taking it away. Must not know: what it is for.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BLOCK", "loop_disk"]

BLOCK = 4096
"""Bytes of a block, whatever the size."""


@contextmanager
def loop_disk(place: Path, size: int) -> Iterator[Path]:
    """A new ext4 of ``size`` bytes, mounted at ``place``, which is made for it; its file lies beside that."""
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
        # Lazily, for what a test has left there may still be in use.
        subprocess.run(["umount", "--lazy", place], check=True)


def _write_through(image: Path) -> None:
    """Keep what is on the disk out of the page cache of the one below, if possible: no real disk has two."""
    listed = ["losetup", "--noheadings", "--output", "NAME", "--associated", str(image)]
    device = subprocess.run(listed, check=True, stdout=subprocess.PIPE).stdout.strip()
    subprocess.run(["losetup", "--direct-io=on", device], check=False, stderr=subprocess.DEVNULL)
