"""A real bash, for configuration fragments that ``evaluation`` cannot evaluate itself.

Owns: running it in an empty environment, without input, for a limited time, and reading its variables back.
Must not know: the syntax of the shell.
"""

import os
import re
from pathlib import Path

from cvmfs_graphdriver.shell.environment import Environment, Setting
from cvmfs_graphdriver.shell.errors import ShellError

__all__ = ["find_bash", "run_bash"]

_SECONDS = 10
_SCRIPT = r"""
own=" $(compgen -v) own name " own=${own//$'\n'/ }
. "$1" </dev/null >/dev/null || :
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


def run_bash(bash: str, path: Path, environment: Environment) -> Environment:
    """The environment after bash has sourced the fragment in ``path``.

    Raises ShellError: it cannot be evaluated, or not within 10 seconds.
    """
    import subprocess

    given = {name: setting.value for name, setting in environment.settings.items()}
    # Variables are passed in the environment, and those that are not exported are unexported in the script.
    private = " ".join(given.keys() - environment.exported)
    script = f"export -n {private}\n{_SCRIPT}" if private else _SCRIPT
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
    if process.returncode or not separator:
        complaint = os.fsdecode(process.stderr).strip().partition("\n")[0]
        raise ShellError(f"{path}: bash cannot evaluate it: {complaint}")
    return _environment(path, environment, variables, exported)


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
