"""Starting the process that keeps a mount.

Owns: how that program is called, so that it is ready soon. Must not know: what it does. Apart from
``keeper``, since who starts one should not wait for what that imports.
"""

import subprocess
from typing import IO, cast

from cvmfs_graphdriver.kernel.child import interpreter
from cvmfs_graphdriver.planes.service.request import MountRequest, parse_answer

__all__ = ["spawn"]

_KEEPER = "cvmfs_graphdriver.planes.service.keeper"
# It forks at once, while there is little to copy: whoever spawned it need not wait for its end. Looking for
# garbage in what is being imported would take a tenth of the time.
_PROGRAM = f"import gc, os; os.fork() and os._exit(0); gc.disable(); from {_KEEPER} import main; main()"


def spawn(request: MountRequest) -> None:
    """Start a keeper in the background and wait until the repository is mounted.

    Raises MountPointError: the target is no place for it; ServerError: what the keeper says.
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
        with cast("IO[bytes]", process.stdin) as pipe:
            pipe.write(request.dump())
        answer = cast("IO[bytes]", process.stdout).readline()
    parse_answer(request.fqrn, answer)
