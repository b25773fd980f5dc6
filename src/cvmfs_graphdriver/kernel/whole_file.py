"""Writing a file as a whole: a reader, or a successor after a crash, sees all of it or none.

Owns: the temporary name, the order of writing, syncing and renaming. Must not know: what is in a file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["TEMPORARY", "whole_file", "write_whole_file"]

TEMPORARY = ".new-"
"""How temporary names begin: a directory's owner removes such files that a crash left."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_whole_file(
    path: str | os.PathLike[str],
    content: bytes | bytearray | memoryview,
    mode: int = 0o644,
    *,
    exact: bool = False,
    scratch: str | None = None,
    durable: bool = False,
) -> None:
    """Create or replace the file ``path``; the arguments are those of ``whole_file``. Raises OSError."""
    with whole_file(path, mode, exact=exact, scratch=scratch, durable=durable) as descriptor:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]


@contextmanager
def whole_file(
    path: str | os.PathLike[str],
    mode: int = 0o644,
    *,
    exact: bool = False,
    scratch: str | None = None,
    durable: bool = False,
) -> Iterator[int]:
    """A descriptor to write to; the file appears as ``path`` when the block ends without an exception.

    ``mode`` is subject to the umask unless it is ``exact``. ``scratch`` is the directory for the temporary
    file, by default the file's own; it must be on the same file system. ``durable`` also guarantees that
    after a power failure the name leads to this content. Raises OSError.
    """
    place = os.fspath(path)
    directory = os.path.dirname(place) or "."
    temporary = f"{scratch or directory}/{TEMPORARY}{os.urandom(8).hex()}"
    descriptor = os.open(temporary, _CREATE, mode)
    try:
        try:
            if exact:
                os.fchmod(descriptor, mode)
            yield descriptor
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        _sync_directory(directory)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
