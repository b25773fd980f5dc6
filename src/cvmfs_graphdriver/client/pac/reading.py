"""Reads the little JavaScript that proxy configuration files are written in.

Owns: its syntax (ECMA-262: functions, ``var``, ``if``, ``return``, expressions over strings, numbers and
booleans). Must not know: what it computes (``javascript``). What is read becomes functions of Python.
"""

import re
from collections.abc import Callable

from cvmfs_graphdriver.client.pac.running import (
    METHODS,
    Expression,
    Function,
    Program,
    Result,
    Run,
    Scope,
    ScriptError,
    Statement,
    Value,
    checked,
    equal,
    is_true,
    plus,
    to_number,
    to_text,
)

__all__ = ["read_program"]

_DEPTH = 40


def read_program(source: str) -> Program:
    """Read a script. Raises ScriptError."""
    return _Parser(source).program()


_TOKEN = re.compile(
    r"(?P<skip>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<string>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z_$][A-Za-z0-9_$]*)"
    r"|(?P<sign>===|!==|==|!=|<=|>=|&&|\|\||\+=|[-+*/%<>!=(){}\[\];,.?:])",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_LITERALS: dict[str, Value] = {"true": True, "false": False, "null": None, "undefined": None}
_OPERATORS: tuple[dict[str, Callable[[Value, Value], Value]], ...] = (
    {"==": equal, "===": equal, "!=": lambda a, b: not equal(a, b), "!==": lambda a, b: not equal(a, b)},
    {
        "<": lambda a, b: to_number(a) < to_number(b),
        ">": lambda a, b: to_number(a) > to_number(b),
        "<=": lambda a, b: to_number(a) <= to_number(b),
        ">=": lambda a, b: to_number(a) >= to_number(b),
    },
    {"+": plus, "-": lambda a, b: to_number(a) - to_number(b)},
)


class _Parser:
    """Reads a program into functions of Python."""

    def __init__(self, source: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(source):
            match = _TOKEN.match(source, position)
            if match is None or match.lastgroup is None:
                raise ScriptError(f"it has {source[position : position + 10]!r}, which is not understood")
            if match.lastgroup != "skip":
                self._tokens.append((match.lastgroup, match.group()))
            position = match.end()
        self._tokens.append(("end", ""))
        self._at = 0
        self._depth = 0

    def program(self) -> Program:
        program = Program()
        while self._kind != "end":
            if self._accept("function"):
                name = self._name()
                parameters = self._parameters()
                program.functions[name] = Function(parameters, self._block())
            else:
                program.statements.append(self._statement())
        return program

    # Tokens

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _word(self) -> str:
        kind, text = self._tokens[self._at]
        return text if kind in {"name", "sign"} else ""

    def _accept(self, *words: str) -> str:
        word = self._word
        if word and word in words:
            self._at += 1
            return word
        return ""

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise ScriptError(f"it has {self._tokens[self._at][1][:20]!r} where {word!r} should be")

    def _name(self) -> str:
        kind, text = self._tokens[self._at]
        if kind != "name":
            raise ScriptError(f"it has {text[:20]!r} where a name should be")
        self._at += 1
        return text

    def _parameters(self) -> tuple[str, ...]:
        self._expect("(")
        names = []
        while not self._accept(")"):
            names.append(self._name())
            self._accept(",")
        return tuple(names)

    # Statements

    def _block(self) -> Statement:
        self._expect("{")
        statements = []
        while not self._accept("}"):
            statements.append(self._statement())

        def run_all(run: Run, scope: Scope) -> Result | None:
            for statement in statements:
                result = statement(run, scope)
                if result is not None:
                    return result
            return None

        return run_all

    def _statement(self) -> Statement:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ScriptError("it is nested too deeply")
        try:
            if self._word == "{":
                return self._block()
            if self._accept(";"):
                return lambda _run, _scope: None
            if self._accept("if"):
                return self._if()
            if self._accept("return"):
                return self._return()
            if self._word in {"for", "while", "do", "switch", "try", "throw", "new", "function"}:
                raise ScriptError(f"it uses {self._word!r}, which is not understood")
            return self._assignment()
        finally:
            self._depth -= 1

    def _if(self) -> Statement:
        branches: list[tuple[Expression, Statement]] = []
        otherwise: Statement | None = None
        while True:
            self._expect("(")
            condition = self._expression()
            self._expect(")")
            branches.append((condition, self._statement()))
            if not self._accept("else"):
                break
            if not self._accept("if"):
                otherwise = self._statement()
                break

        def choose(run: Run, scope: Scope) -> Result | None:
            for condition, then in branches:
                if is_true(condition(run, scope)):
                    return then(run, scope)
            return otherwise(run, scope) if otherwise else None

        return choose

    def _return(self) -> Statement:
        value = (lambda _run, _scope: None) if self._word in {";", "}"} else self._expression()
        self._accept(";")
        return lambda run, scope: Result(value(run, scope))

    def _assignment(self) -> Statement:
        declared = self._accept("var", "let", "const")
        following = self._tokens[self._at + 1][1] if self._kind == "name" else ""
        if not declared and following not in {"=", "+="}:
            expression = self._expression()
            self._accept(";")

            def evaluate(run: Run, scope: Scope) -> None:
                expression(run, scope)

            return evaluate
        steps = [self._one_assignment()]
        while self._accept(","):
            steps.append(self._one_assignment())
        self._accept(";")

        def assign(run: Run, scope: Scope) -> None:
            for step in steps:
                step(run, scope)

        return assign

    def _one_assignment(self) -> Callable[[Run, Scope], None]:
        name = self._name()
        sign = self._accept("=", "+=")
        value = self._expression() if sign else (lambda _run, _scope: None)

        def assign(run: Run, scope: Scope) -> None:
            target = run.globals if name not in scope and name in run.globals else scope
            new = value(run, scope)
            target[name] = plus(target.get(name), new) if sign == "+=" else new

        return assign

    # Expressions

    # Files have chains of hundreds of conditions: those become loops. Only brackets nest.

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ScriptError("it is nested too deeply")
        choices: list[tuple[Expression, Expression]] = []
        last = self._either()
        while self._accept("?"):
            yes = self._expression()
            self._expect(":")
            choices.append((last, yes))
            last = self._either()
        self._depth -= 1
        return _chosen(choices, last) if choices else last

    def _either(self) -> Expression:
        parts = [self._both()]
        while self._accept("||"):
            parts.append(self._both())
        return _first(parts, wanted=True) if len(parts) > 1 else parts[0]

    def _both(self) -> Expression:
        parts = [self._binary(0)]
        while self._accept("&&"):
            parts.append(self._binary(0))
        return _first(parts, wanted=False) if len(parts) > 1 else parts[0]

    def _binary(self, level: int) -> Expression:
        if level == len(_OPERATORS):
            return self._unary()
        left = self._binary(level + 1)
        rest = []
        while sign := self._accept(*_OPERATORS[level]):
            rest.append((_OPERATORS[level][sign], self._binary(level + 1)))
        return _applied(left, rest) if rest else left

    def _unary(self) -> Expression:
        signs = []
        while sign := self._accept("!", "-"):
            signs.append(sign)
        value = self._postfix()
        return _signed(signs[::-1], value) if signs else value

    def _postfix(self) -> Expression:
        value = self._primary()
        steps = []
        while self._accept("."):
            name = self._name()
            if self._word == "(":
                steps.append(_method(name, self._arguments()))
            elif name == "length":
                steps.append(_length)
            else:
                raise ScriptError(f"it uses .{name}, which is not understood")
        return _stepped(value, steps) if steps else value

    def _arguments(self) -> list[Expression]:
        self._expect("(")
        arguments = []
        while not self._accept(")"):
            arguments.append(self._expression())
            if not self._accept(",") and self._word != ")":
                raise ScriptError("it has a list of arguments without an end")
        return arguments

    def _primary(self) -> Expression:
        kind, text = self._tokens[self._at]
        if self._accept("("):
            inner = self._expression()
            self._expect(")")
            return inner
        self._at += 1
        if kind == "string":
            string = _ESCAPE.sub(lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text[1:-1])
            return lambda _run, _scope: string
        if kind == "number":
            number = float(text)
            return lambda _run, _scope: number
        if kind != "name":
            raise ScriptError(f"it has {text[:20]!r} where a value should be")
        if text in _LITERALS:
            return lambda _run, _scope: _LITERALS[text]
        if self._word == "(":
            return _call(text, self._arguments())
        return lambda run, scope: _variable(run, scope, text)


def _variable(run: Run, scope: Scope, name: str) -> Value:
    run.step()
    if name in scope:
        return scope[name]
    if name in run.globals:
        return run.globals[name]
    raise ScriptError(f"it uses {name}, which it has not set")


def _chosen(choices: list[tuple[Expression, Expression]], otherwise: Expression) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        for condition, value in choices:
            if is_true(condition(run, scope)):
                return value(run, scope)
        return otherwise(run, scope)

    return evaluate


def _first(parts: list[Expression], *, wanted: bool) -> Expression:
    """The first value that is true, or false, as ``wanted``; the last one if none is."""

    def evaluate(run: Run, scope: Scope) -> Value:
        value: Value = None
        for part in parts:
            value = part(run, scope)
            if is_true(value) is wanted:
                break
        return value

    return evaluate


def _applied(left: Expression, rest: list[tuple[Callable[[Value, Value], Value], Expression]]) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        value = left(run, scope)
        for operator, right in rest:
            value = operator(value, right(run, scope))
        return value

    return evaluate


def _signed(signs: list[str], value: Expression) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        found = value(run, scope)
        for sign in signs:
            found = not is_true(found) if sign == "!" else -to_number(found)
        return found

    return evaluate


_Step = Callable[[Run, Scope, Value], Value]
"""What is behind a point: it makes another value of one."""


def _stepped(value: Expression, steps: list[_Step]) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        found = value(run, scope)
        for step in steps:
            found = step(run, scope, found)
        return found

    return evaluate


def _length(_run: Run, _scope: Scope, value: Value) -> Value:
    return float(len(to_text(value)))


def _method(name: str, arguments: list[Expression]) -> _Step:
    method = METHODS.get(name)
    if method is None:
        raise ScriptError(f"it uses .{name}(), which is not understood")

    def call(run: Run, scope: Scope, value: Value) -> Value:
        run.step()
        return checked(method, [to_text(value), *[to_text(a(run, scope)) for a in arguments]])

    return call


def _call(name: str, arguments: list[Expression]) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        depth = int(to_number(scope.get("\0depth")))
        return run.call(name, [argument(run, scope) for argument in arguments], depth)

    return evaluate
