"""Workers for proxy configuration files by the thousand: forks of a process that has loaded the engine.

Reads questions from standard input and writes what became of them to standard output, each as a line of JSON.
"""

import json
import os
import sys

from cvmfs_graphdriver.client.network import pac_worker
from cvmfs_graphdriver.client.network.pac import OUTPUT_LIMIT

__all__ = ["main"]


def _answer(question: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, answer and mistakes of a worker."""
    files = [os.memfd_create(name) for name in ("question", "answer", "mistakes")]
    os.pwrite(files[0], question, 0)
    pid = os.fork()
    if not pid:
        for number, file in enumerate(files):
            os.dup2(file, number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  for the rest of the process
        code = 1
        try:
            pac_worker.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception:  # noqa: BLE001  what Python does when nobody catches it
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    answer, mistakes = (os.pread(file, OUTPUT_LIMIT, 0) for file in files[1:])
    for file in files:
        os.close(file)
    return os.waitstatus_to_exitcode(status), answer, mistakes


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin.buffer:
        code, answer, mistakes = _answer(line)
        print(json.dumps([code, answer.decode("latin-1"), mistakes.decode("latin-1")]), flush=True)


if __name__ == "__main__":
    main()
