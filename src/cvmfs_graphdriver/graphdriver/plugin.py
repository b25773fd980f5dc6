"""The plugin's process: a graph driver behind a unix socket, until it is told to end.

Owns: start, end, signals, and that no failure of a call ends the process. Must not know: what calls mean.

As process 1 of the plugin's container it has more duties, which a parent of its own does for it: to heed
SIGTERM, for which process 1 has no default, to reap what ends as an orphan, and to start the driver again if
it is killed; the processes that serve repositories go on meanwhile, so containers do not notice.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.graphdriver.driver import GraphDriver
from cvmfs_graphdriver.graphdriver.layer_upload import LayerUploader
from cvmfs_graphdriver.graphdriver.wire import Call, PluginServer, Reply, Streamed, listen
from cvmfs_graphdriver.layers.idmap import Owners
from cvmfs_graphdriver.layers.mounts import IDLE
from cvmfs_graphdriver.planes.plane import Plane

__all__ = ["run_plugin"]

_log = logging.getLogger(__name__)

_PAUSE = 0.2
"""Seconds before a killed driver is started again."""


def run_plugin(
    socket: Path,
    base: Path,
    make_plane: Callable[[Path, Owners], Plane],
    uploader: LayerUploader,
    *,
    idle: float = IDLE,
) -> None:
    """Serve ``socket`` until SIGTERM or SIGINT; layers lie below ``base``.

    Unused repositories are unmounted after ``idle`` seconds.
    """
    listener = listen(socket)  # before there is a driver: while one is started anew, calls wait for it
    alone = os.getpid() == 1
    if alone:
        _become_init()
    driver = GraphDriver(base, make_plane, uploader, idle=idle)
    failure = _guard(driver.recover)
    if failure:
        _log.error("cannot go on with the layers of before: %s", failure["Err"])

    def answer(call: Call) -> Reply | Streamed:
        replies: list[Reply | Streamed] = []
        started = time.monotonic()
        failure = _guard(lambda: replies.append(driver.answer(call)), call.method)
        _log.debug("%s took %.3f s", call.method, time.monotonic() - started)
        return failure if failure is not None else replies[0]

    server = PluginServer(listener, answer, _guard)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        socket.unlink(missing_ok=True)
        if alone:
            _guard(driver.end, "the end of the graph driver")


def _guard(action: Callable[[], None], what: str = "the graph driver") -> Reply | None:
    """Run an action; a failure becomes the reply that tells Docker of it."""
    try:
        action()
    except CvmfsGraphdriverError as error:
        _log.warning("%s: %s", what, error)
        return {"Err": str(error)}
    except OSError as error:
        _log.warning("%s: %s", what, error)
        return {"Err": f"{what}: {error}"}
    except Exception as error:  # noqa: BLE001 - the outermost loop of a daemon: tell, and go on
        _log.exception("%s failed unexpectedly", what)
        return {"Err": f"{what} failed unexpectedly: {error!r}; please report this with the plugin's log"}
    return None


def _become_init() -> None:
    """Go on in a child; this process stays behind until the child has ended as it was told to."""
    told = False

    def pass_on(number: int, _: object) -> None:
        nonlocal told
        told = True
        with suppress(ProcessLookupError):
            os.kill(child, number)

    while True:
        child = os.fork()
        if child == 0:
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        code = _wait_for(child)
        if told or code == 0:
            os._exit(code & 0xFF)
        _log.error("the graph driver ended with %d and is started again", code)
        time.sleep(_PAUSE)


def _wait_for(child: int) -> int:
    """Reap whatever ends until ``child`` does; returns how it ended."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)
