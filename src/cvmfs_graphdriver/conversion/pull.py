"""Pulling layers into files ``<digest>.tar.gz``, for the workflow of stock release managers.

Owns: the files. Each appears complete and verified or not at all, and an existing one is not fetched again. A
layer that is not compressed with gzip is recompressed, so that every file is what its name says; only in that
case is the digest in the name not that of the file. Must not know: repositories.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from isal import isal_zlib

from cvmfs_graphdriver.conversion.convert import distinct_layers
from cvmfs_graphdriver.conversion.errors import OutputError
from cvmfs_graphdriver.conversion.progress import CountingSource, Progress
from cvmfs_graphdriver.oci.image.model import Image, ImageLayer
from cvmfs_graphdriver.oci.image.source import ImageSource
from cvmfs_graphdriver.oci.layer.compression import Encoding, decompressed, detect
from cvmfs_graphdriver.oci.verify import ByteSource, DigestReader, Verifier

__all__ = ["pull_layers"]

_BLOCK: Final = 1 << 20
_GZIP_FORMAT: Final = 31
_GZIP_LEVEL: Final = 1


def pull_layers(source: ImageSource, image: Image, directory: Path, progress: Progress) -> list[Path]:
    """Write the layers of an image, base first, to ``directory``, which is created if necessary.

    Returns all files, including those that already existed. Raises OutputError: no space, no permission;
    UnsupportedImageError: a foreign layer; and whatever the source raises.
    """
    layers = distinct_layers(image)
    for layer in layers:
        layer.descriptor.require_layer()
    with _mapped(directory):
        directory.mkdir(exist_ok=True)
    files = {layer: directory / f"{layer.descriptor.digest.hex}.tar.gz" for layer in layers}
    missing = [layer for layer in layers if not files[layer].is_file()]
    progress.begin(source.name, missing)
    for layer in missing:
        with source.blob(layer.descriptor) as blob:
            _write(files[layer], layer, CountingSource(blob, layer, progress))
        progress.finish(layer)
    return list(files.values())


def _write(target: Path, layer: ImageLayer, blob: ByteSource) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with _mapped(target):
        try:
            with temporary.open("wb") as file:
                for data in _as_gzip(layer, blob):
                    file.write(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


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
