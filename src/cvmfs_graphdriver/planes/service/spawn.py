"""Starting the process that keeps a mount.

Owns: the command that starts it, made to be ready soon. Must not know: what it does. It is not part of
``keeper``, so that callers need not wait for what that imports.
"""

import subprocess
from contextlib import suppress
from typing import IO, cast

from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.kernel.child import interpreter
from cvmfs_graphdriver.planes.errors import ServerError
from cvmfs_graphdriver.planes.service.request import MountRequest, receive_answer

__all__ = ["spawn"]

_PATIENCE = 600.0
"""Seconds that a mount may take: all servers and proxies may have to be tried for each of several objects."""
_KEEPER = "cvmfs_graphdriver.planes.service.keeper"
# It forks at once, while there is little to copy, so that the caller need not wait for it to end. Collecting
# garbage while it imports modules would take a tenth of the time.
_PROGRAM = f"import gc, os; os.fork() and os._exit(0); gc.disable(); from {_KEEPER} import main; main()"


def spawn(request: MountRequest) -> None:
    """Start a keeper in the background and wait until the repository is mounted.

    Raises MountPointError: the target is not suitable; ServerError: what the keeper reports.
    """
    request.check_target()
    words, environment = interpreter()
    with subprocess.Popen(
        # ps shows what follows the program.
        [*words, "-c", _PROGRAM, _KEEPER, request.fqrn, request.target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    ) as process:
        stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        channel = Channel(stdout.fileno(), stdin.fileno())
        with suppress(BrokenPipeError):  # then there is no answer either
            channel.send(request.message())
        if channel.is_quiet(_PATIENCE):
            raise ServerError(f"cannot mount {request.fqrn}: no answer within {_PATIENCE:g} s; see its log")
        receive_answer(request.fqrn, channel)
