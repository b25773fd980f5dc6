"""The stock server's configuration files: shell fragments that only assign, read without a shell.

Owns: their form (CernVM-FS format reference, sections 13.2 and 13.4): NAME=VALUE, quoted as in a shell, with
comments. Anything that a shell would expand is refused. Must not know: what any name means.
"""

import re
import shlex
from pathlib import Path
from typing import NoReturn, Self

from cvmfs_graphdriver.publisher.errors import StorageError

__all__ = ["Assignments"]

_LIMIT = 1 << 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YES, _NO = {"yes", "true", "on", "1"}, {"no", "false", "off", "0"}


class Assignments:
    """The values in a file whose names begin with ``prefix``; callers leave the prefix out."""

    def __init__(self, file: Path, text: str, prefix: str) -> None:
        """Raises StorageError: something in ``text`` is not an assignment."""
        self._file = file
        self._prefix = prefix
        self._values = dict(self._assignments(text))

    @classmethod
    def load(cls, file: Path, prefix: str) -> Self:
        """Read a file. Raises StorageError: it cannot be read, or something in it is not an assignment."""
        try:
            with file.open("rb") as reader:
                data = reader.read(_LIMIT + 1)
            text = data.decode()
        except OSError as error:
            raise StorageError(f"cannot read the configuration {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StorageError(f"the configuration {file} is not UTF-8 text") from error
        if len(data) > _LIMIT:
            raise StorageError(f"{file} is too big for a configuration file")
        return cls(file, text, prefix)

    def _assignments(self, text: str) -> list[tuple[str, str]]:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                raise StorageError(f"{self._file}:{number}: {error}") from error
            words = words[1:] if words[:1] == ["export"] else words
            for word in words:
                name, equals, value = word.partition("=")
                if not equals or not _NAME.fullmatch(name):
                    raise StorageError(f"{self._file}:{number}: this is not NAME=VALUE")
                if "$" in value or "`" in value:
                    raise StorageError(f"{self._file}:{number}: {name} must be written without $ and `")
                found.append((name, value))
        return found

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raise StorageError: the value of ``name`` is invalid because of ``problem``."""
        raise StorageError(f"{self._file}: {self._prefix}{name}: {problem}")

    def text(self, name: str, default: str) -> str:
        """A value, verbatim."""
        return self._values.get(f"{self._prefix}{name}", default)

    def required(self, name: str) -> str:
        """A value that must not be empty. Raises StorageError."""
        value = self.text(name, "")
        if not value:
            self.refuse(name, "it is required, and missing")
        return value

    def number(self, name: str, default: int, most: int) -> int:
        """A number from 0 to ``most``. Raises StorageError."""
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit()) or int(value) > most:
            self.refuse(name, f"{value!r} is not a number from 0 to {most}")
        return int(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        """Yes or no, in any spelling the stock tools accept. Raises StorageError."""
        value = self.text(name, "yes" if default else "no").lower()
        if value not in _YES | _NO:
            self.refuse(name, f"{value!r} is neither yes nor no")
        return value in _YES
