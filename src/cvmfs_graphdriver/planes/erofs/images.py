"""Flattened images on disk: one file for each chain of layers, named by what it is made of.

Owns: the directory of image files. Only complete files get their name, damaged ones are detected, and the
least recently used are removed. Must not know: what an image shows, how it is mounted.

The image is followed by notes of its maker, their length, and the SHA-256 of everything before. A file whose
checksum is wrong, or whose notes are no longer accepted, counts as missing.
"""

import hashlib
import logging
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.kernel.whole_file import TEMPORARY, whole_file

__all__ = ["Images", "Made"]

_log = logging.getLogger(__name__)

_DIGEST = 32
_length = struct.Struct("<I")
_ROOM = 1 << 30
"""Bytes that all images may take before the least recently used are removed."""


@dataclass(frozen=True, slots=True)
class Made:
    """A new image and its notes."""

    image: bytes | bytearray
    notes: bytes


class Images:
    """The images in ``directory``, for one process at a time. All methods raise OSError: the disk failed."""

    def __init__(self, directory: Path, room: int = _ROOM) -> None:
        self._directory = directory
        self._room = room
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in directory.glob(TEMPORARY + "*"):
            left.unlink()

    def open(self, name: str, accept: Callable[[bytes], bool], make: Callable[[], Made]) -> int:
        """A descriptor of the image called ``name``, which belongs to the caller.

        It is made now if it is missing or damaged, or if ``accept`` refuses its notes. Raises what ``make``
        raises.
        """
        path = self._directory / f"{name}.erofs"
        descriptor = self._open_whole(path, accept)
        if descriptor is not None:
            return descriptor
        self._store(path, make())
        self._collect(keep=path)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _open_whole(self, path: Path, accept: Callable[[bytes], bool]) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        whole = False
        try:
            notes = _notes(_content(descriptor))
            if notes is None:
                _log.warning("the image %s is damaged; making a new one", path)
            elif accept(notes):
                whole = True
                os.utime(descriptor)
        finally:
            if not whole:
                os.close(descriptor)
        return descriptor if whole else None

    def _store(self, path: Path, made: Made) -> None:
        end = made.notes + _length.pack(len(made.notes))
        digest = hashlib.sha256(made.image)
        digest.update(end)
        with whole_file(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
            file.write(made.image)
            file.write(end + digest.digest())

    def _collect(self, keep: Path) -> None:
        """Remove the least recently used images; those that are mounted stay in use."""
        found = []
        for path in self._directory.glob("*.erofs"):
            with suppress(FileNotFoundError):
                found.append((path.stat(), path))
        total = sum(status.st_size for status, _ in found)
        for status, path in sorted(found, key=lambda each: each[0].st_mtime_ns):
            if total <= self._room:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= status.st_size


def _content(descriptor: int) -> bytes:
    """What is in an open file, which is left at its beginning."""
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        content = file.read()
        file.seek(0)
    return content


def _notes(content: bytes) -> bytes | None:
    """The notes in a file; None if it is damaged."""
    end = len(content) - _DIGEST - _length.size
    if end < 0 or hashlib.sha256(memoryview(content)[:-_DIGEST]).digest() != content[-_DIGEST:]:
        return None
    (length,) = _length.unpack_from(content, end)
    return content[end - length : end] if length <= end else None
