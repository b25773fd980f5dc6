"""Pulling layers into files ``<digest>.tar.gz``, for the workflow of stock release managers.

Owns: the files. Each appears complete and verified or not at all, and an existing one is not fetched again if
its content is the layer's: others may be able to write to the directory, so names prove nothing, and no
symbolic link in it is followed. A layer that is not compressed with gzip is recompressed, so that every file
is what its name says; only in that case is the digest in the name not that of the file. Must not know:
repositories.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from isal import isal_zlib

from cvmfs_graphdriver.conversion.convert import distinct_layers
from cvmfs_graphdriver.conversion.errors import OutputError
from cvmfs_graphdriver.conversion.progress import CountingSource, Progress
from cvmfs_graphdriver.kernel.whole_file import whole_file
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import OciError
from cvmfs_graphdriver.oci.image.model import Image, ImageLayer
from cvmfs_graphdriver.oci.image.source import ImageSource
from cvmfs_graphdriver.oci.layer.compression import Encoding, decompressed, detect
from cvmfs_graphdriver.oci.verify import ByteSource, DigestReader, Verifier

__all__ = ["pull_layers"]

_BLOCK: Final = 1 << 20
_GZIP_FORMAT: Final = 31
_GZIP_LEVEL: Final = 1
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def pull_layers(source: ImageSource, image: Image, directory: Path, progress: Progress) -> list[Path]:
    """Write the layers of an image, base first, to ``directory``, which is created if necessary.

    Returns all files, including those that already existed. Raises OutputError: no space, no permission;
    UnsupportedImageError: a foreign layer; and whatever the source raises.
    """
    layers = distinct_layers(image)
    for layer in layers:
        layer.descriptor.require_layer()
    with _mapped(directory):
        directory.mkdir(0o755, exist_ok=True)
    files = {layer: directory / f"{layer.descriptor.digest.hex}.tar.gz" for layer in layers}
    missing = [layer for layer in layers if not _is_there(files[layer], layer)]
    progress.begin(source.name, missing)
    for layer in missing:
        with source.blob(layer.descriptor) as blob:
            _write(files[layer], layer, CountingSource(blob, layer, progress))
        progress.finish(layer)
    return list(files.values())


def _write(target: Path, layer: ImageLayer, blob: ByteSource) -> None:
    with (
        _mapped(target),
        whole_file(target) as descriptor,
        open(descriptor, "wb", closefd=False) as file,
    ):
        file.writelines(_as_gzip(layer, blob))


def _is_there(file: Path, layer: ImageLayer) -> bool:
    """Whether a file that nobody else can change holds the layer: its blob, or its content recompressed."""
    with _mapped(file):
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
                return False
            raise
        with open(descriptor, "rb") as content:
            status = os.fstat(descriptor)
            is_ours = status.st_uid in {0, os.geteuid()} and not status.st_mode & _OTHERS_WRITE
            if not (is_ours and stat.S_ISREG(status.st_mode)) or detect(content)[0] is not Encoding.GZIP:
                return False
            content.seek(0)
            if status.st_size == layer.descriptor.size and _has_digest(content, layer.descriptor.digest):
                return True
            content.seek(0)
            try:
                return _has_digest(decompressed(str(file), content), layer.diff_id)
            except OciError:
                return False


def _has_digest(source: ByteSource, digest: ContentDigest) -> bool:
    hasher = digest.hasher()
    while data := source.read(_BLOCK):
        hasher.update(data)
    return hasher.hexdigest() == digest.hex


def _as_gzip(layer: ImageLayer, blob: ByteSource) -> Iterator[bytes]:
    """The blob itself if it is gzip, otherwise its content compressed with gzip."""
    encoding, whole = detect(blob)
    if encoding is Encoding.GZIP:
        yield from iter(lambda: whole.read(_BLOCK), b"")
        return
    name = f"layer {layer.descriptor.digest}"
    verifier = Verifier(f"the tar stream of {name}", layer.diff_id, None)
    stream = DigestReader(decompressed(name, whole), verifier)
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
    while data := stream.read(_BLOCK):
        yield compressor.compress(data)
    yield compressor.flush()


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Translate the system's errors into ours."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some space and try again",
            errno.EDQUOT: "the disk quota is exceeded: free some space and try again",
            errno.ENOENT: "there is no such directory: create it first",
        }.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {path}: {advice}") from error
