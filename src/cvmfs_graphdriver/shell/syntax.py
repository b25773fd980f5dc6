"""The syntax of configuration fragments: the subset of the shell language that they use.

Owns: reading text into commands (POSIX.1-2017, Shell Command Language: 2.2 quoting, 2.3 tokens, 2.6.2
parameter expansion, 2.9 commands). It knows simple commands, ``;`` ``&&`` ``||`` ``!``, ``if``, quotes and
``$NAME`` ``${NAME}`` ``${NAME:-word}`` and the like. Must not know: what a command does. Text beyond that
raises ``UnsupportedError``: it may be valid shell, but not of this subset.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = [
    "AndOr",
    "Assignment",
    "Command",
    "Expansion",
    "If",
    "Literal",
    "Negation",
    "Script",
    "Simple",
    "SyntaxFaultError",
    "UnsupportedError",
    "Word",
    "parse",
]


class SyntaxFaultError(Exception):
    """The text is not valid shell: ``what`` is wrong on ``line``. Does not leave this room."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class UnsupportedError(SyntaxFaultError):
    """The text may be valid shell, but is beyond the supported subset."""


class Literal(NamedTuple):
    """Literal text."""

    text: str
    quoted: bool


class Expansion(NamedTuple):
    """``${name<operator>word}``; the operator is empty, or ``-``, ``=`` or ``+``, with or without ``:``."""

    name: str
    operator: str
    word: "Word"
    quoted: bool


Word = tuple[Literal | Expansion, ...]


class Assignment(NamedTuple):
    """``name=value``, or ``name+=value``."""

    line: int
    name: str
    value: Word
    append: bool


class Simple(NamedTuple):
    """A simple command. Arguments that look like assignments remain such, for ``export`` and ``readonly``."""

    line: int
    assignments: tuple[Assignment, ...]
    words: tuple[Word | Assignment, ...]


class If(NamedTuple):
    """``if`` and ``elif`` branches as (condition, body), then the body of ``else``."""

    branches: tuple[tuple["Script", "Script"], ...]
    otherwise: "Script"


class AndOr(NamedTuple):
    """Commands joined by operators: ``operators[i]`` stands before ``commands[i + 1]``."""

    commands: tuple["Command", ...]
    operators: tuple[str, ...]


class Negation(NamedTuple):
    """``! command``."""

    command: "Command"


Command = Simple | If | AndOr | Negation
Script = tuple[Command, ...]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
_BLANK = re.compile(r"[ \t]+|\\\n")
_COMMENT = re.compile(r"#[^\n]*")
_PLAIN = re.compile(r"[^ \t\n\\'\"$`;&|<>()]+")
_OPERATOR = re.compile(r"&&|\|\||;;|[;&|<>()\n]")
_PARAMETER_OPERATOR = re.compile(r":?[-=+]|(?=\})")
_MAX_DEPTH = 50
_CLAUSE_WORDS = frozenset({"then", "elif", "else", "fi"})
_FOREIGN_WORDS = frozenset(
    "for while until case esac do done select function time coproc [[ { }".split(" ")  # noqa: SIM905
)


def parse(text: str) -> Script:
    """Parse a whole fragment. Raises SyntaxFaultError, or its subclass UnsupportedError."""
    return _Parser(text).script()


class _Parser:
    """A recursive-descent parser; ``_position`` is where the next token begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0

    @property
    def _line(self) -> int:
        return self._text.count("\n", 0, self._position) + 1

    # Tokens

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._position)
        if match:
            self._position = match.end()
        return match

    def _skip_blanks(self) -> None:
        while self._match(_BLANK):
            pass
        self._match(_COMMENT)

    def _skip_separators(self) -> None:
        """Skip blanks, comments and newlines."""
        self._skip_blanks()
        while self._text.startswith("\n", self._position):
            self._position += 1
            self._skip_blanks()

    def _peek_operator(self) -> str:
        self._skip_blanks()
        match = _OPERATOR.match(self._text, self._position)
        return match.group() if match else ""

    def _peek_word(self) -> str:
        """The next word if it is unquoted, for recognising reserved words."""
        self._skip_blanks()
        match = _PLAIN.match(self._text, self._position)
        if match is None or self._text[match.end() : match.end() + 1] in set("\\'\"$`"):
            return ""
        return match.group()

    def _at_end(self) -> bool:
        return self._position >= len(self._text)

    # Commands

    def script(self) -> Script:
        """The whole text."""
        commands = tuple(self._list(frozenset()))
        if not self._at_end():
            raise SyntaxFaultError(self._line, f"{self._peek_word()!r} is out of place")
        return commands

    def _list(self, end: frozenset[str]) -> Iterator[Command]:
        """Commands up to the end of the text or a reserved word in ``end``."""
        while True:
            self._skip_separators()
            if self._at_end() or self._peek_word() in end or self._peek_word() in _CLAUSE_WORDS:
                return
            yield self._and_or()
            operator = self._peek_operator()
            if operator == ";":
                self._position += 1
            elif operator and operator != "\n":
                raise UnsupportedError(self._line, f"the operator {operator!r}")
            elif not operator and not self._at_end():
                raise SyntaxFaultError(self._line, "a command must end before the next one begins")

    def _and_or(self) -> Command:
        commands = [self._pipeline()]
        operators = []
        while (operator := self._peek_operator()) in {"&&", "||"}:
            self._position += 2
            self._skip_separators()
            operators.append(operator)
            commands.append(self._pipeline())
        return AndOr(tuple(commands), tuple(operators)) if operators else commands[0]

    def _pipeline(self) -> Command:
        negated = False
        while (word := self._peek_word()) == "!":
            self._position += 1
            negated = not negated
        if word in _FOREIGN_WORDS:
            raise UnsupportedError(self._line, f"the word {word!r}")
        with self._nested():
            command = self._if() if word == "if" else self._simple()
        return Negation(command) if negated else command

    @contextmanager
    def _nested(self) -> Iterator[None]:
        """Limit the recursion: the text may come from a repository."""
        if self._depth == _MAX_DEPTH:
            raise SyntaxFaultError(self._line, "it is nested too deeply")
        self._depth += 1
        yield
        self._depth -= 1

    def _if(self) -> If:
        start = self._line
        branches = []
        otherwise: Script = ()
        self._expect("if", start)
        while True:
            condition = tuple(self._list(frozenset({"then"})))
            self._expect("then", start)
            body = tuple(self._list(_CLAUSE_WORDS))
            if not condition or not body:
                raise SyntaxFaultError(start, "an 'if' has an empty part")
            branches.append((condition, body))
            word = self._peek_word()
            if word != "elif":
                break
            self._expect("elif", start)
        if word == "else":
            self._expect("else", start)
            otherwise = tuple(self._list(frozenset({"fi"})))
        self._expect("fi", start)
        return If(tuple(branches), otherwise)

    def _expect(self, word: str, start: int) -> None:
        self._skip_separators()
        if self._peek_word() != word:
            raise SyntaxFaultError(start, f"this 'if' has no {word!r}")
        self._position += len(word)

    def _simple(self) -> Simple:
        line = self._line
        assignments: list[Assignment] = []
        words: list[Word | Assignment] = []
        while not self._at_end() and not self._peek_operator():
            if self._at_end():
                break
            item = self._assignment() or self._word()
            if isinstance(item, Assignment) and not words:
                assignments.append(item)
            else:
                words.append(item)
        if not assignments and not words:
            operator = self._peek_operator()
            if operator in {"(", "<", ">", "&", "|"}:
                raise UnsupportedError(line, f"the operator {operator!r}")
            raise SyntaxFaultError(line, f"a command is missing before {operator!r}")
        return Simple(line, tuple(assignments), tuple(words))

    def _assignment(self) -> Assignment | None:
        line = self._line
        match = self._match(_ASSIGNMENT)
        if match is None:
            return None
        if self._text.startswith("(", self._position):
            raise UnsupportedError(line, "arrays")
        value = self._word()
        _refuse_tilde(value, line)
        return Assignment(line, match.group(1), value, bool(match.group(2)))

    # Words

    def _word(self) -> Word:
        """A word, possibly empty, up to an unquoted blank or operator."""
        return tuple(self._parts(quoted=False, closing=""))

    def _parts(self, *, quoted: bool, closing: str) -> Iterator[Literal | Expansion]:
        """Parts up to an unquoted blank or operator, or up to ``closing``, which is not consumed."""
        start = self._line
        while not self._at_end():
            char = self._text[self._position]
            if char == closing:
                return
            if char == "$":
                yield self._dollar(quoted=quoted)
            elif char == "`":
                raise UnsupportedError(self._line, "command substitution")
            elif char == "\\":
                yield from self._escape(quoted=quoted)
            elif char == '"':
                if quoted:
                    raise UnsupportedError(self._line, "quotes within braces within quotes")
                yield from self._double_quotes()
            elif char == "'" and not quoted:
                yield self._single_quotes()
            elif quoted or closing == "}":
                yield self._run(closing, quoted=quoted)
            elif match := self._match(_PLAIN):
                yield Literal(match.group(), quoted=False)
            else:
                return
        if closing:
            raise SyntaxFaultError(start, f"{closing} is missing")

    def _run(self, closing: str, *, quoted: bool) -> Literal:
        """Plain text inside quotes or braces."""
        special = '\\$`"' + closing + ("" if quoted else "'")
        end = self._position
        while end < len(self._text) and self._text[end] not in special:
            end += 1
        text = self._text[self._position : end]
        self._position = end
        return Literal(text, quoted)

    def _escape(self, *, quoted: bool) -> Iterator[Literal]:
        char = self._text[self._position + 1 : self._position + 2]
        if not char:
            raise SyntaxFaultError(self._line, "the text ends in a backslash")
        self._position += 2
        if char == "\n":
            return
        if quoted and char == "}":
            raise UnsupportedError(self._line, "an escaped brace within quotes")
        if quoted and char not in '$`"\\':
            char = "\\" + char
        yield Literal(char, quoted=True)

    def _double_quotes(self) -> Iterator[Literal | Expansion]:
        self._position += 1
        yield Literal("", quoted=True)
        yield from self._parts(quoted=True, closing='"')
        self._position += 1

    def _single_quotes(self) -> Literal:
        end = self._text.find("'", self._position + 1)
        if end < 0:
            raise SyntaxFaultError(self._line, "' is missing")
        text = self._text[self._position + 1 : end]
        self._position = end + 1
        return Literal(text, quoted=True)

    def _dollar(self, *, quoted: bool) -> Literal | Expansion:
        line = self._line
        self._position += 1
        if match := self._match(_NAME):
            return Expansion(match.group(), "", (), quoted)
        char = self._text[self._position : self._position + 1]
        if char == "{":
            return self._braces(line, quoted=quoted)
        if char == "(":
            raise UnsupportedError(line, "command substitution or arithmetic")
        if char and ((char in "'\"" and not quoted) or char in "@*#?-$![" or char.isdigit()):
            raise UnsupportedError(line, f"'${char}'")
        return Literal("$", quoted)

    def _braces(self, line: int, *, quoted: bool) -> Expansion:
        self._position += 1
        name = self._match(_NAME)
        operator = self._match(_PARAMETER_OPERATOR) if name else None
        if name is None or operator is None:
            raise UnsupportedError(line, "this kind of '${...}'")
        with self._nested():
            word = tuple(self._parts(quoted=quoted, closing="}"))
        _refuse_tilde(word, line)
        self._position += 1
        return Expansion(name.group(), operator.group(), word, quoted)


def _refuse_tilde(word: Word, line: int) -> None:
    """Refuse tilde expansion: an unquoted tilde at the beginning or after a colon."""
    for index, part in enumerate(word):
        text = part.text if isinstance(part, Literal) and not part.quoted else ""
        if (index == 0 and text.startswith("~")) or ":~" in text:
            raise UnsupportedError(line, "'~' for a home directory")
