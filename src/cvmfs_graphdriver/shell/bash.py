"""A real bash, for configuration fragments that ``evaluation`` cannot evaluate itself.

Owns: running it in an empty environment, without input, for a limited time, refusing to let it source what
came over the network, and reading its variables back. Must not know: the syntax of the shell.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from cvmfs_graphdriver.shell.environment import Environment, Setting
from cvmfs_graphdriver.shell.errors import ShellError

__all__ = ["find_bash", "is_below", "run_bash"]

_SECONDS = 10
_REFUSED = 113
"""The exit status when a file would source one that came over the network."""
_GUARD = r"""
guard() {
    local place
    place=$(readlink -m -- "$1") || exit 113
    case $place/ in %s) exit 113 ;; esac
}
source() { guard "$1"; builtin source "$@"; }
.() { guard "$1"; builtin source "$@"; }
"""
"""Functions that take precedence over bash's own commands; %s are patterns of foreign files."""
_SCRIPT = r"""
own=" $(compgen -v) own name " own=${own//$'\n'/ }
builtin source "$1" </dev/null >/dev/null || :
for name in $(compgen -v); do
    case $name in PIPESTATUS | BASH_*) continue ;; esac
    case $own in *" $name "*) case " $2 " in *" $name "*) ;; *) continue ;; esac ;; esac
    printf '%s=%s\0' "$name" "${!name}"
done
printf '\0\0'
for name in $(compgen -e); do printf '%s\0' "$name"; done
"""


def find_bash() -> str | None:
    """The path of bash, None if it is not installed."""
    import shutil  # most configuration needs no bash

    return shutil.which("bash")


def is_below(path: Path, directories: Sequence[Path]) -> bool:
    """Whether a file is in one of these directories, by its name or by where its links lead."""
    names = (path.absolute(), path.resolve())
    return any(name.is_relative_to(place) for name in names for place in _both(directories))


def _both(directories: Sequence[Path]) -> set[Path]:
    return {*directories, *(place.resolve() for place in directories)}


def run_bash(bash: str, path: Path, environment: Environment, foreign: Sequence[Path] = ()) -> Environment:
    """The environment after bash has sourced the fragment in ``path``.

    It must not source what is below the directories ``foreign``, and programs that it runs do not see
    variables set there. Raises ShellError: it cannot be evaluated, or not within 10 seconds.
    """
    import subprocess

    given = {name: setting.value for name, setting in environment.settings.items()}
    hidden = {
        name for name in environment.exported & given.keys()
        if is_below(Path(environment.settings[name].file), foreign)
    }  # fmt: skip
    # Variables are passed in the environment, and those that are not exported are unexported in the script.
    private = " ".join((given.keys() - environment.exported) | hidden)
    script = _guard(foreign) + (f"export -n {private}\n{_SCRIPT}" if private else _SCRIPT)
    command = [bash, "--noprofile", "--norc", "-c", script, "bash", f"./{path.name}", " ".join(given)]
    try:
        process = subprocess.run(
            command, cwd=path.parent, env=given, capture_output=True, timeout=_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ShellError(f"{path}: bash did not finish within {_SECONDS} seconds") from None
    except (OSError, ValueError) as error:
        raise ShellError(f"{path}: cannot run bash to evaluate it: {error}") from error
    variables, separator, exported = process.stdout.partition(b"\0\0")
    if process.returncode == _REFUSED:
        raise ShellError(
            f"{path}: bash would have to source a file that came over the network; write it without what "
            "only bash can do (such as loops and $(...))"
        )
    if process.returncode or not separator:
        complaint = os.fsdecode(process.stderr).strip().partition("\n")[0]
        raise ShellError(f"{path}: bash cannot evaluate it: {complaint}")
    after = _environment(path, environment, variables, exported)
    unchanged = {name for name in hidden if after.settings.get(name) is environment.settings[name]}
    after.exported |= unchanged
    return after


def _guard(foreign: Sequence[Path]) -> str:
    import shlex

    patterns = "|".join(sorted(f"{shlex.quote(f'{place}/')}*" for place in _both(foreign)))
    return _GUARD % patterns if patterns else ""


def _environment(path: Path, before: Environment, variables: bytes, exported: bytes) -> Environment:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    after = Environment()
    for item in filter(None, variables.split(b"\0")):
        name, _, value = item.decode("utf-8", "surrogateescape").partition("=")
        known = before.settings.get(name)
        if known is not None and known.value == value and not _line(name, text):
            after.settings[name] = known
        else:
            after.settings[name] = Setting(value, str(path), _line(name, text))
    names = {name.decode("utf-8", "surrogateescape") for name in exported.split(b"\0")}
    after.exported = names & set(after.settings)
    return after


def _line(name: str, text: str) -> int:
    """The last line that seems to set a variable, 0 for none: bash does not tell."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if re.search(rf"\b{name}\+?=", line)]
    return lines[-1] if lines else 0
