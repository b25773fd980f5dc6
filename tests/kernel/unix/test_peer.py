"""Who serves a unix socket."""

import os
import socket
from pathlib import Path

from cvmfs_graphdriver.kernel.unix.peer import serving_pid


def test_the_process_that_listens_is_known(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert serving_pid(path) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        assert serving_pid(path) is None, "it exists, but nobody listens"
        listener.listen()
        assert serving_pid(path) == os.getpid()
    assert serving_pid(path) is None
    assert serving_pid(tmp_path / ("x" * 200)) is None, "too long a name"
