"""Reads the little JavaScript that proxy configuration files are written in.

Owns: its syntax (ECMA-262: functions, ``var``, ``if``, ``return``, expressions over strings, numbers and
booleans). Must not know: what it computes (``javascript``). What is read becomes functions of Python.
"""

import re
from collections.abc import Callable

from cvmfs_graphdriver.client.javascript import (
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
        self._expect("(")
        condition = self._expression()
        self._expect(")")
        then = self._statement()
        otherwise = self._statement() if self._accept("else") else None

        def choose(run: Run, scope: Scope) -> Result | None:
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

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ScriptError("it is nested too deeply")
        condition = self._either()
        self._depth -= 1
        if not self._accept("?"):
            return condition
        yes = self._expression()
        self._expect(":")
        no = self._expression()
        return lambda run, scope: (yes if is_true(condition(run, scope)) else no)(run, scope)

    def _either(self) -> Expression:
        left = self._both()
        while self._accept("||"):
            left = _or(left, self._both())
        return left

    def _both(self) -> Expression:
        left = self._binary(0)
        while self._accept("&&"):
            left = _and(left, self._binary(0))
        return left

    def _binary(self, level: int) -> Expression:
        if level == len(_OPERATORS):
            return self._unary()
        left = self._binary(level + 1)
        while sign := self._accept(*_OPERATORS[level]):
            left = _apply(_OPERATORS[level][sign], left, self._binary(level + 1))
        return left

    def _unary(self) -> Expression:
        signs = []
        while sign := self._accept("!", "-"):
            signs.append(sign)
        value = self._postfix()
        for sign in reversed(signs):
            value = _not(value) if sign == "!" else _minus(value)
        return value

    def _postfix(self) -> Expression:
        value = self._primary()
        while self._accept("."):
            name = self._name()
            if self._word == "(":
                value = _method(value, name, self._arguments())
            elif name == "length":
                value = _length(value)
            else:
                raise ScriptError(f"it uses .{name}, which is not understood")
        return value

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


def _or(left: Expression, right: Expression) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        value = left(run, scope)
        return value if is_true(value) else right(run, scope)

    return evaluate


def _and(left: Expression, right: Expression) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        value = left(run, scope)
        return right(run, scope) if is_true(value) else value

    return evaluate


def _apply(operator: Callable[[Value, Value], Value], left: Expression, right: Expression) -> Expression:
    return lambda run, scope: operator(left(run, scope), right(run, scope))


def _not(value: Expression) -> Expression:
    return lambda run, scope: not is_true(value(run, scope))


def _minus(value: Expression) -> Expression:
    return lambda run, scope: -to_number(value(run, scope))


def _length(value: Expression) -> Expression:
    return lambda run, scope: float(len(to_text(value(run, scope))))


def _method(value: Expression, name: str, arguments: list[Expression]) -> Expression:
    method = METHODS.get(name)
    if method is None:
        raise ScriptError(f"it uses .{name}(), which is not understood")

    def evaluate(run: Run, scope: Scope) -> Value:
        run.step()
        return checked(method, [to_text(value(run, scope)), *[to_text(a(run, scope)) for a in arguments]])

    return evaluate


def _call(name: str, arguments: list[Expression]) -> Expression:
    def evaluate(run: Run, scope: Scope) -> Value:
        depth = int(to_number(scope.get("\0depth")))
        return run.call(name, [argument(run, scope) for argument in arguments], depth)

    return evaluate
