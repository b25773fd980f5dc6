"""Evaluates configuration fragments as bash would, and records which line of which file set each variable.

Owns: what the commands of a fragment do (POSIX.1-2017, Shell Command Language: 2.6 word expansions, 2.14
special built-ins; ``test``). Fragments beyond the syntax in ``syntax``, or beyond the commands here, are
passed to a real bash in an empty environment, if it is installed. Bash never reads a file that came over the
network. Must not know: what variables mean.

Nothing here runs a program or writes a file; ``test`` and ``source`` examine files.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.shell.bash import find_bash, is_below, run_bash
from cvmfs_graphdriver.shell.conditions import evaluate_test
from cvmfs_graphdriver.shell.environment import Environment, Setting
from cvmfs_graphdriver.shell.errors import ShellError
from cvmfs_graphdriver.shell.syntax import (
    AndOr,
    Assignment,
    Command,
    Expansion,
    If,
    Literal,
    Negation,
    Script,
    Simple,
    SyntaxFaultError,
    UnsupportedError,
    Word,
    parse,
)

__all__ = ["evaluate"]

_SIZE_LIMIT = 1024 * 1024
_DEPTH_LIMIT = 10


def evaluate(path: Path, environment: Environment, foreign: Sequence[Path] = ()) -> Environment:
    """The environment after the fragment in ``path``; the given one is not modified.

    What is below the directories ``foreign`` came over the network: bash does not see it, whoever sources it.
    Raises ShellError: the file cannot be read, is not shell, or needs bash, which is not installed or must
    not be used.
    """
    try:
        return _Evaluation(path, environment.copy(), set(), _Shared(foreign)).run()
    except UnsupportedError as error:
        if bash := find_bash():
            return run_bash(bash, path, environment, foreign)
        raise ShellError(
            f"{path}:{error.line}: {error.what} is not supported without bash; install bash or simplify it"
        ) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise ShellError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _SIZE_LIMIT or b"\0" in data:
        raise ShellError(f"{path} is not a configuration file: it is larger than 1 MiB or contains NUL bytes")
    return data.decode("utf-8", "surrogateescape")


class _Segment(NamedTuple):
    """A part of an expanded word; only the result of an unquoted expansion is split into fields."""

    text: str
    quoted: bool
    splits: bool


class _Shared:
    """What holds for all files together: which are ``foreign``, and the remaining limits.

    There are limits because a few lines can multiply values or commands endlessly.
    """

    def __init__(self, foreign: Sequence[Path]) -> None:
        self.foreign = foreign
        self.commands = 20_000
        self.characters = 16 * 1024 * 1024


class _Evaluation:
    """One file being evaluated; ``source`` starts another one with the same environment."""

    def __init__(
        self, path: Path, environment: Environment, readonly: set[str], shared: _Shared, depth: int = 0
    ) -> None:
        self.path = path
        self.environment = environment
        self.readonly = readonly
        self.shared = shared
        self.depth = depth
        self.line = 0

    def run(self) -> Environment:
        text = _read(self.path)
        try:
            self._script(parse(text))
        except UnsupportedError as error:
            if not is_below(self.path, self.shared.foreign):
                raise
            raise ShellError(
                f"{self.path}:{error.line}: {error.what} is not supported in a file that comes over the "
                "network"
            ) from error
        except SyntaxFaultError as error:
            raise ShellError(f"{self.path}:{error.line}: {error.what}") from error
        return self.environment

    # Commands: each method returns the exit status

    def _script(self, script: Script) -> int:
        status = 0
        for command in script:
            status = self._command(command)
        return status

    def _command(self, command: Command) -> int:
        match command:
            case Simple():
                return self._simple(command)
            case Negation():
                return int(self._command(command.command) == 0)
            case AndOr():
                status = self._command(command.commands[0])
                for operator, following in zip(command.operators, command.commands[1:], strict=True):
                    if (status == 0) == (operator == "&&"):
                        status = self._command(following)
                return status
            case If():
                for condition, body in command.branches:
                    if self._script(condition) == 0:
                        return self._script(body)
                return self._script(command.otherwise)

    def _simple(self, command: Simple) -> int:
        self.line = command.line
        self.shared.commands -= 1
        if self.shared.commands < 0:
            raise self._endless()
        if not command.words:
            for assignment in command.assignments:
                self._assign(assignment)
            return 0
        first, *rest = command.words
        if command.assignments or isinstance(first, Assignment):
            raise UnsupportedError(command.line, "a variable for one command alone")
        name = "".join(part.text if isinstance(part, Literal) else "$" for part in first)
        if name in {"export", "readonly"}:
            return self._declare(name, rest)
        builtin = self._builtins().get(name)
        if builtin is None:
            raise UnsupportedError(command.line, f"the command {name!r}")
        return builtin(list(self._fields(rest)))

    def _endless(self) -> ShellError:
        return ShellError(f"{self.path}:{self.line}: evaluation exceeded its limit")

    def _assign(self, assignment: Assignment) -> None:
        value = self._text(assignment.value)
        if assignment.append and assignment.name in self.environment.settings:
            before = self.environment.settings[assignment.name].value
            self.shared.characters -= len(before)
            if self.shared.characters < 0:
                raise self._endless()
            value = before + value
        self._set(assignment.name, value, assignment.line)

    def _set(self, name: str, value: str, line: int) -> None:
        if name in self.readonly:
            raise UnsupportedError(line, f"setting {name}, which is readonly,")
        self.environment.settings[name] = Setting(value, str(self.path), line)

    def _declare(self, name: str, words: Iterable[Word | Assignment]) -> int:
        for word in words:
            if isinstance(word, Assignment):
                self._assign(word)
                variables = [word.name]
            else:
                variables = list(self._fields([word]))
                if any(not variable.isidentifier() for variable in variables):
                    raise UnsupportedError(self.line, f"this use of {name}")
            (self.environment.exported if name == "export" else self.readonly).update(variables)
        return 0

    def _builtins(self) -> dict[str, Callable[[list[str]], int]]:
        return {
            ":": lambda _: 0,
            "true": lambda _: 0,
            "false": lambda _: 1,
            ".": self._source,
            "source": self._source,
            "unset": self._unset,
            "test": self._test,
            "[": self._bracket,
        }

    def _unset(self, names: list[str]) -> int:
        for name in names:
            if name in self.readonly or not name.isidentifier():
                raise UnsupportedError(self.line, f"unset {name}")
            self.environment.settings.pop(name, None)
            self.environment.exported.discard(name)
        return 0

    def _source(self, arguments: list[str]) -> int:
        if len(arguments) != 1:
            raise UnsupportedError(self.line, "source with several arguments")
        path = self._path(arguments[0])
        if evaluate_test(["-f", arguments[0]], self._path) != 0:
            return 1
        if self.depth == _DEPTH_LIMIT:
            raise ShellError(f"{self.path}:{self.line}: files source each other too deeply")
        _Evaluation(path, self.environment, self.readonly, self.shared, self.depth + 1).run()
        return 0

    def _path(self, name: str) -> Path:
        """A file named by the fragment: relative to the fragment's directory."""
        return self.path.parent / name

    def _test(self, arguments: list[str]) -> int:
        status = evaluate_test(arguments, self._path)
        if status is None:
            raise UnsupportedError(self.line, "this test")
        return status

    def _bracket(self, arguments: list[str]) -> int:
        if not arguments or arguments[-1] != "]":
            raise ShellError(f"{self.path}:{self.line}: '[' without ']'")
        return self._test(arguments[:-1])

    # Words

    def _text(self, word: Word) -> str:
        """A word expanded without splitting, such as the value of an assignment."""
        return "".join(segment.text for segment in self._segments(word, splits=False))

    def _fields(self, words: Iterable[Word | Assignment]) -> Iterator[str]:
        """The arguments that the words of a command expand to."""
        for word in words:
            if isinstance(word, Assignment):
                sign = "+=" if word.append else "="
                word = (Literal(word.name + sign, quoted=False), *word.value)  # noqa: PLW2901
            if any(isinstance(part, Literal) and not part.quoted and "{" in part.text for part in word):
                raise UnsupportedError(self.line, "braces")
            yield from self._split(list(self._segments(word, splits=False)))

    def _split(self, segments: Sequence[_Segment]) -> Iterator[str]:
        current: str | None = None
        for segment in segments:
            if not segment.quoted and segment.text != "[":
                self._refuse_patterns(segment.text)
            if not segment.splits:
                if segment.text or segment.quoted:
                    current = (current or "") + segment.text
                continue
            for index, piece in enumerate(_split_blanks(segment.text)):
                if index and current is not None:
                    yield current
                    current = None
                if piece:
                    current = (current or "") + piece
        if current is not None:
            yield current

    def _refuse_patterns(self, text: str) -> None:
        if any(char in "*?[" for char in text) or text.startswith("~"):
            raise UnsupportedError(self.line, "a pattern of file names")

    def _segments(self, word: Word, *, splits: bool) -> Iterator[_Segment]:
        for part in word:
            if isinstance(part, Literal):
                yield _Segment(part.text, part.quoted, splits and not part.quoted)
            else:
                yield from self._expansion(part)

    def _expansion(self, expansion: Expansion) -> Iterator[_Segment]:
        known = self.environment.settings.get(expansion.name)
        given = known is not None and bool(known.value or not expansion.operator.startswith(":"))
        operator = expansion.operator.removeprefix(":")
        splits = not expansion.quoted
        if operator == "+":
            if given:
                yield from self._segments(expansion.word, splits=splits)
        elif given or not operator:
            value = known.value if known else ""
            self.shared.characters -= len(value)
            if self.shared.characters < 0:
                raise self._endless()
            yield _Segment(value, expansion.quoted, splits)
        elif operator == "-":
            yield from self._segments(expansion.word, splits=splits)
        else:
            self._set(expansion.name, self._text(expansion.word), self.line)
            yield _Segment(self.environment.settings[expansion.name].value, expansion.quoted, splits)


def _split_blanks(text: str) -> list[str]:
    """``text`` split at blanks; the first or last part is empty if it begins or ends with blanks."""
    return re.split(r"[ \t\n]+", text)
