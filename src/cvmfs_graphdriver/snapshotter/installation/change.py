"""A change to one file of an engine's configuration: shown, made, with a backup of what was there first.

Owns: difference, backup and order of writing. Must not know: what is in a file.
"""

import difflib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.kernel.whole_file import write_whole_file
from cvmfs_graphdriver.snapshotter.errors import InstallationError

__all__ = ["BACKUP", "FileChange", "read"]

BACKUP = ".before-cvmfs-snapshotter"
"""What the name of a backup ends with."""
_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a file contains and what it is to contain; None stands for a file that does not exist."""

    path: Path
    before: bytes | None
    after: bytes | None

    @property
    def needed(self) -> bool:
        """Whether anything is to be done."""
        return self.before != self.after

    def difference(self) -> str:
        """The change as a unified diff, or the empty string."""
        lines = difflib.unified_diff(
            _lines(self.before),
            _lines(self.after),
            str(self.path) if self.before is not None else "/dev/null",
            str(self.path) if self.after is not None else "/dev/null",
        )
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
        )

    def install(self) -> None:
        """Write the file, after a backup of what was there before the first installation.

        Raises InstallationError.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            backup = Path(f"{self.path}{BACKUP}")
            if self.before is not None and not os.path.lexists(backup):
                write_whole_file(backup, self.before, self._mode(), exact=True, durable=True)
            self._write()
        except OSError as error:
            raise InstallationError(f"cannot write {self.path}: {error.strerror}") from error

    def take_back(self) -> None:
        """Write or remove the file, and remove the backup. Raises InstallationError."""
        try:
            self._write()
            with suppress(FileNotFoundError):
                os.unlink(f"{self.path}{BACKUP}")
        except OSError as error:
            raise InstallationError(f"cannot restore {self.path}: {error.strerror}") from error

    def _write(self) -> None:
        if self.after is None:
            self.path.unlink(missing_ok=True)
        elif self.needed:
            write_whole_file(self.path, self.after, self._mode(), exact=True, durable=True)

    def _mode(self) -> int:
        try:
            return os.stat(self.path).st_mode & 0o7777
        except FileNotFoundError:
            return 0o644


def read(path: Path) -> bytes | None:
    """A configuration file's content, None if there is none. Raises InstallationError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallationError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _LIMIT:
        raise InstallationError(f"{path} has more than {_LIMIT >> 20} MiB; is it a configuration file?")
    return content


def _lines(content: bytes | None) -> list[str]:
    return [] if content is None else content.decode(errors="backslashreplace").splitlines(keepends=True)
