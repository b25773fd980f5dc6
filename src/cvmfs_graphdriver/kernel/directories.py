"""Creating directories with exactly the mode asked for.

Owns: modes that do not depend on the umask. Must not know: what is put in a directory.
"""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["make_directories"]


def make_directories(path: Path, mode: int) -> None:
    """Create ``path`` and the missing directories above it; existing ones keep their modes.

    Raises OSError.
    """
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(each, mode)
            os.chmod(each, mode)
