"""Proxy auto-configuration (PAC) files: which proxies they name for a URL.

Owns: running such a file in a process with limits, since it is somebody else's program, and the meaning of
its answer (CernVM-FS format reference, section 8.1). Must not know: where a file comes from, which proxy is
in use.
"""

import json
import os
import signal
import subprocess
from collections.abc import Sequence

from cvmfs_graphdriver.client.addresses import is_address
from cvmfs_graphdriver.kernel.child import interpreter

__all__ = ["OUTPUT_LIMIT", "find_proxies", "parse_answer"]

OUTPUT_LIMIT = 64 * 1024
"""Bytes that a worker may write; what is more is lost."""
_WORKER = "cvmfs_graphdriver.client.network.pac_worker"
_SECONDS = 10.0
_MOST_PROXIES = 100
_REASON_LENGTH = 200
_SEPARATORS = frozenset(";|")
_MISTAKE = "JSERROR: "
_OUT_OF_TIME = frozenset({-signal.SIGXCPU, -signal.SIGKILL})
_OUT_OF_MEMORY = frozenset({"null", "InternalError: out of memory"})


def find_proxies(source: str, url: str, host: str) -> str:
    """What the file ``source`` says for ``url``, as a list of proxy groups (section 8.1).

    Raises ValueError: the file is not valid, exceeds a limit, or names no proxy that can be used.
    """
    return parse_answer(_evaluate(json.dumps([source, url, host]).encode()))


def parse_answer(answer: str) -> str:
    """``PROXY a:1; DIRECT`` as a list of proxy groups.

    Raises ValueError: it names no usable proxy, or too many.
    """
    groups = [group for part in answer.split(";") if part.strip() and (group := _group(part.split()))]
    if not groups:
        raise ValueError(f"FindProxyForURL names no usable proxy: {_shown(answer)!r}")
    if len(groups) > _MOST_PROXIES:
        raise ValueError(f"FindProxyForURL names more than {_MOST_PROXIES} proxies")
    return ";".join(groups)


def _group(words: Sequence[str]) -> str:
    """One member of the answer; empty if it cannot be used."""
    kind = words[0].upper()
    if kind == "DIRECT":
        return "DIRECT"
    if len(words) != 2 or kind not in {"PROXY", "HTTP", "HTTPS"}:
        return ""
    place = words[1]
    if "://" not in place:
        place = f"https://{place}" if kind == "HTTPS" else f"http://{place}"
    return place if is_address(place) and not set(place) & _SEPARATORS else ""


def _evaluate(question: bytes) -> str:
    """What the worker answers. Raises ValueError: it does not."""
    command, environment = interpreter()
    # Files in memory, unlike pipes, obey the worker's limit of what it may write.
    answer, mistakes = os.memfd_create("answer"), os.memfd_create("mistakes")
    try:
        process = subprocess.run(
            [*command, "-m", _WORKER],
            env=environment,
            input=question,
            stdout=answer,
            stderr=mistakes,
            check=False,
            timeout=_SECONDS,
        )
        told = (os.pread(file, OUTPUT_LIMIT, 0) for file in (answer, mistakes))
        return _understood(process.returncode, *told)
    except subprocess.TimeoutExpired:
        raise ValueError(f"evaluation exceeded its limit of {_SECONDS:g} seconds") from None
    except OSError as error:
        raise ValueError(f"cannot evaluate it: {error.strerror}") from error
    finally:
        os.close(answer)
        os.close(mistakes)


def _understood(code: int, answer: bytes, mistakes: bytes) -> str:
    """The answer of a worker that ended with ``code``. Raises ValueError: it has none."""
    if code:
        raise ValueError(_reason(code, mistakes))
    if len(answer) == OUTPUT_LIMIT:
        raise ValueError("its answer is too long")
    return answer.decode("utf-8", "replace")


def _reason(code: int, mistakes: bytes) -> str:
    """Why the worker ended without an answer."""
    if code in _OUT_OF_TIME:
        return "evaluation exceeded its limit of processor time"
    if code < 0:
        return f"evaluation was ended by signal {-code}"
    lines = mistakes.decode("utf-8", "replace").splitlines()
    reason = next((line.removeprefix(_MISTAKE) for line in lines if line.startswith(_MISTAKE)), "")
    if reason in _OUT_OF_MEMORY:
        return "evaluation exceeded its limit of memory"
    return f"evaluation failed: {_shown(reason)}" if reason else "it cannot be evaluated"


def _shown(text: str) -> str:
    """A stranger's text, for a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_REASON_LENGTH])
