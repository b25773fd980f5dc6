"""The evaluator of configuration fragments against a real bash."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.shell import evaluation as shell
from cvmfs_graphdriver.shell.bash import find_bash, run_bash
from cvmfs_graphdriver.shell.environment import Environment, Setting
from cvmfs_graphdriver.shell.errors import ShellError
from cvmfs_graphdriver.shell.evaluation import evaluate
from tests.support.mutations import INPUTS, mutations
from tests.support.project import FAST


def _values(environment: Environment) -> tuple[dict[str, str], set[str]]:
    values = {name: setting.value for name, setting in environment.settings.items()}
    return values, environment.exported & values.keys()


@pytest.fixture
def _no_bash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "find_bash", lambda: None)


SUBSET = [
    "",
    "A=1",
    "  A=1  # comment",
    "A=1;B=2 C=3;",
    "A='single $B'\nB=\"double $A\"",
    "A=x'y z'\"w\"",
    "A=a\\ b\\$c\\\nd",
    'A="a\\\nb\\c\\"\\$"',
    "A=line1'\n'line2",
    "A=1\nexport A B=2 C\nC=3",
    "readonly A=1 B",
    "A=1\nA+=2\nB+=x",
    "A=${B:-d}${C-e}${D:=f}${E=g}\nF=$D$E",
    "B=\nA=[${B:-d}][${B-d}][${B:+d}][${B+d}]\n: ${B:=set}",
    'A="${B:-with blank}"\nC=${B:-a  b}\nD=${B:-"q  r"}\nE=${B:-\'$x\'}',
    "A=${B:-${C:-${D:-deep}}}",
    "A='a  b'\n[ $A = a ] && B=1 || B=2",
    "A='a b'\nif [ \"$A\" = 'a b' ]; then B=1; fi",
    "if [ -f /etc/passwd ]; then A=1; else A=2; fi",
    "if [ -f /nowhere ]\nthen\n  A=1\nelif [ -d /etc ]\nthen A=2\nelse A=3\nfi",
    "if false; then A=1; elif false; then A=2; fi; B=3",
    'if ! [ -n "$X" ]; then A=1; fi',
    "if test -z $X; then A=1; fi",
    "if [ 1 -lt 2 ] && [ ! 3 -eq 4 ]; then A=1; fi",
    "if [ x -eq 1 ]; then A=1; else A=2; fi",
    "if [ $X = a ]; then A=1; else A=2; fi",
    "if ! [ $X = a ]; then A=1; else A=2; fi",
    "! true && A=1\n! false && B=1\ntrue && true || C=1",
    "false && A=1 || B=1\ntrue || A=1 && C=1",
    "[ a -a '' ] || A=1\n[ '' -o b ] && B=1\n[ '(' b ')' ] && C=1",
    ". ./other.conf\nB=$A-after",
    ". other.conf && B=1",
    "source ./missing.conf || B=1",
    "A=1\nunset A\nB=${A-none}",
    "A='1 2'\nexport X=$A",
    "A=*\nB=a[b]c\nC='{1,2}'",
    "A={a,b}",
    "A=$\nB=a$ C=$%",
    "A=@fqrn@",
    'A=a#b #c\nB="#"',
    "A=\u00e4\u00f6\nB='\u20ac'",
    "A=1\r\nB=2",
    "A==b\nB=c=d",
    "A=\nB=2",
    ":",
    "\n\n  \n# only a comment",
    "true\nfalse",
    "A=${B:-a}b}",
]

BEYOND = [
    "for i in 1 2 3; do A=$A$i; done",
    "A=$(echo hi)",
    "A=`echo hi`",
    "A=$((1 + 2))",
    "case x in x) A=1;; esac",
    "f() { A=1; }\nf",
    "A=~/x",
    "if [[ a == a* ]]; then A=1; fi",
    "A=abc\nB=${A%c}\nC=${#A}",
    "eval A=1",
    "A=1 B=2 true\nC=3",
    "echo noise; A=1",
    "{ A=1; }",
    "A=1 && : > /dev/null",
    "readonly A=1\nA=2\nB=3",
    "A=$'a\\tb'",
    'A="${B:-"x y"}"',
    "if [ a = a -a b = b -a c = c ]; then A=1; fi",
    "A=1 | B=2\nC=3",
    "printf -v A %s x",
]


def _prepare(directory: Path, text: str) -> Path:
    (directory / "other.conf").write_text("A=other\n")
    path = directory / "fragment.conf"
    path.write_bytes(text.encode())
    return path


@pytest.mark.usefixtures("_no_bash")
@pytest.mark.parametrize("text", SUBSET)
def test_subset_is_evaluated_as_bash_does(text: str, tmp_path: Path) -> None:
    path = _prepare(tmp_path, text)
    bash = find_bash()
    assert bash is not None
    assert _values(evaluate(path, Environment())) == _values(run_bash(bash, path, Environment()))


@pytest.mark.parametrize("text", BEYOND)
def test_what_is_beyond_the_subset_is_left_to_bash(text: str, tmp_path: Path) -> None:
    path = _prepare(tmp_path, text)
    bash = find_bash()
    assert bash is not None
    expected = _values(run_bash(bash, path, Environment()))
    assert _values(evaluate(path, Environment())) == expected
    assert expected[0]


@pytest.mark.usefixtures("_no_bash")
@pytest.mark.parametrize("text", BEYOND)
def test_without_bash_the_message_names_file_and_line(text: str, tmp_path: Path) -> None:
    path = _prepare(tmp_path, "A=1\n\n" + text)
    with pytest.raises(ShellError, match=r"fragment\.conf:[3-9].*install bash"):
        evaluate(path, Environment())


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("A=1\nB='x", 2, "' is missing"),
        ('A=1\nB="x\n\n', 2, '" is missing'),
        ("A=${B:-x", 1, "} is missing"),
        ("\nif true; then A=1", 2, "no 'fi'"),
        ("if true; fi", 1, "no 'then'"),
        ("fi", 1, "out of place"),
        ("&& A=1", 1, "missing before"),
        ("A=1\\", 1, "backslash"),
        ("if true; then if true; then\n:; fi", 1, "no 'fi'"),
    ],
)
def test_what_is_no_shell_is_refused_with_file_and_line(
    text: str, line: int, what: str, tmp_path: Path
) -> None:
    path = _prepare(tmp_path, text)
    with pytest.raises(ShellError) as caught:
        evaluate(path, Environment())
    assert f"fragment.conf:{line}:" in str(caught.value)
    assert what in str(caught.value)


def test_every_value_knows_the_line_that_set_it(tmp_path: Path) -> None:
    path = _prepare(tmp_path, "A=1\n\nif true; then\n  B=2 ; export C=3\nfi\n: ${D:=4}\n. ./other.conf\n")
    settings_ = evaluate(path, Environment()).settings
    assert {name: setting.origin.rpartition("/")[2] for name, setting in settings_.items()} == {
        "A": "other.conf:1",
        "B": "fragment.conf:4",
        "C": "fragment.conf:4",
        "D": "fragment.conf:6",
    }


def test_bash_keeps_the_origin_of_what_it_does_not_change(tmp_path: Path) -> None:
    path = _prepare(tmp_path, "\nfor i in 1; do B=$A$i; done\n")
    before = Environment({"A": Setting("x", "first.conf", 7)}, {"A"})
    after = evaluate(path, before)
    assert after.settings["A"] == Setting("x", "first.conf", 7)
    assert after.settings["B"] == Setting("x1", str(path), 2)
    assert after.exported == {"A"}
    assert "B" not in before.settings


def test_bash_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "yes")
    path = _prepare(tmp_path, "A=$(echo ${LEAK:-no}; cat)")
    assert evaluate(path, Environment()).settings["A"].value == "no"


def test_endless_evaluation_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_graphdriver.shell.bash._SECONDS", 0.2)
    with pytest.raises(ShellError, match="within"):
        evaluate(_prepare(tmp_path, "while :; do :; done"), Environment())
    with pytest.raises(ShellError, match="too deeply"):
        evaluate(_prepare(tmp_path, ". ./fragment.conf"), Environment())


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    for text in ("A=\0", "#" * 1_100_000, "if true; then " * 100, "A=" + "${B:-" * 1000):
        with pytest.raises(ShellError):
            evaluate(_prepare(tmp_path, text), Environment())
    with pytest.raises(ShellError, match="cannot read"):
        evaluate(tmp_path, Environment())


NAMES = st.sampled_from(["A", "B", "C"])
TEXTS = st.text(alphabet="ab $\"'\\;#=:-{}[]~*/.@\t", max_size=6)


@st.composite
def fragments(draw: st.DrawFn) -> str:
    """Lines of a configuration file, some of them odd."""
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        name, text, other = draw(NAMES), draw(TEXTS), draw(NAMES)
        word = draw(st.sampled_from([text, f'"{text}"', f"'{text}'", f"${other}", f"${{{other}:-{text}}}"]))
        form = draw(
            st.sampled_from(
                [
                    "{n}={w}",
                    "export {n}={w}",
                    "[ {w} = {w} ] && {n}=1",
                    "if [ -n {w} ]; then {n}=1; else {n}=2; fi",
                    ": ${{{n}:={w}}}",
                    "test -z {w} || {n}=3",
                ]
            )
        )
        lines.append(form.format(n=name, w=word))
    return "\n".join(lines) + "\n"


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=fragments())
def test_any_fragment_is_evaluated_as_bash_does_or_refused(text: str, tmp_path: Path) -> None:
    path = _prepare(tmp_path, text)
    bash = find_bash()
    assert bash is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shell, "find_bash", lambda: None)
        try:
            ours = evaluate(path, Environment())
        except ShellError:
            return
    assert _values(ours) == _values(run_bash(bash, path, Environment()))


GOOD = [
    b"S='http://a/@fqrn@;http://b'\nexport A=\"x$B\"\n",
    b'if [ "x$A" = "x" ]; then\n A=${B:-$C}\nelse . ./y; fi # c\n',
    b"[ -z $A ] && B+=c || readonly C=${A:=b}\n",
    b"! test 1 -lt 2\nunset A B\nA=a\\ b'c d'$A$B\n",
    b'source a/b && A=$A$A; A=$A$A\n: ${A:+"$B"}\n',
    b"[ 9 -eq $A ]; [ ! -d / ] || [ ( x ) ]\n",
]


@pytest.mark.fuzz
def test_any_bytes_are_evaluated_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "find_bash", lambda: None)
    evaluated = 0
    with tempfile.TemporaryDirectory(dir=FAST) as directory:
        path = Path(directory, "fragment.conf")
        path.touch()
        descriptor = os.open(path, os.O_WRONLY)
        for data in mutations(GOOD):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, data, 0)
            try:
                evaluate(path, Environment())
                evaluated += 1
            except ShellError as error:
                assert "fragment.conf" in str(error)  # noqa: PT017
        os.close(descriptor)
    assert evaluated > INPUTS / 10


@pytest.mark.parametrize(
    "text",
    [
        "A=0123456789abcdef\n" + "A=$A$A\n" * 40,
        "A=0123456789abcdef\n" + "A+=$A\n" * 40,
        "A=0123456789abcdef\n" + "A=$A$A\n" * 12 + f": {'$A' * 10_000}\n",
        ". ./next\n" * 2000,
    ],
)
def test_what_grows_without_end_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "next").write_text(". ./last\n" * 2000)
    (tmp_path / "last").write_text("A=b\n" * 2000)
    with pytest.raises(ShellError, match="exceeded its limit"):
        evaluate(_prepare(tmp_path, text), Environment())


@pytest.mark.parametrize("name", ["/" + "x" * 300, "/x" * 3000, "loop"])
def test_files_that_cannot_be_looked_at_count_as_absent(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    text = f"[ -e {name} ] || A=1\n[ -s {name} ] || B=1\n. {name} || C=1\n"
    values, _ = _values(evaluate(_prepare(tmp_path, text), Environment()))
    assert values == {"A": "1", "B": "1", "C": "1"}
