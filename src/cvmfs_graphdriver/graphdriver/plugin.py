"""The plugin's process: a graph driver behind a unix socket.

Owns: start, end, signals, and that no failed call ends the process. Must not know: what calls mean.

As process 1 of the plugin's container it forks and becomes a supervisor: it forwards SIGTERM, which process 1
ignores by default, reaps orphans, and restarts the driver if it is killed. The processes that serve
repositories keep running meanwhile, so containers do not notice.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.graphdriver.boot_wait import BOOT_WAIT
from cvmfs_graphdriver.graphdriver.driver import GraphDriver
from cvmfs_graphdriver.graphdriver.layer_upload import LayerUploader
from cvmfs_graphdriver.graphdriver.wire import Call, PluginServer, Reply, Streamed, listen
from cvmfs_graphdriver.http.server import running
from cvmfs_graphdriver.kernel.waiting.ending import EndSignal
from cvmfs_graphdriver.layers.idmap import Owners
from cvmfs_graphdriver.layers.mounts import IDLE
from cvmfs_graphdriver.planes.plane import Plane

__all__ = ["run_plugin"]

_log = logging.getLogger(__name__)

_PAUSE = 0.2
"""Seconds before a killed driver is restarted."""


def run_plugin(
    socket: Path,
    base: Path,
    make_plane: Callable[[Path, Owners], Plane],
    uploader: LayerUploader,
    *,
    idle: float = IDLE,
    boot_wait: float = BOOT_WAIT,
    problems: Sequence[str] = (),
) -> None:
    """Serve ``socket`` until SIGTERM or SIGINT, with layers below ``base``.

    Unused repositories are unmounted after ``idle`` seconds. Soon after the start, repositories that cannot
    be reached are waited for, ``boot_wait`` seconds in all. ``problems`` of the settings are logged, and
    shown by ``docker info``.
    """
    for problem in problems:
        _log.error("%s", problem)
    listener = listen(socket)  # before the driver exists, so that calls wait while one is restarted
    alone = os.getpid() == 1
    if alone:
        _become_init()
    driver = GraphDriver(base, make_plane, uploader, idle=idle, boot_wait=boot_wait, problems=problems)
    failure = _guard(driver.recover)
    if failure:
        _log.error("cannot recover the layers: %s", failure["Err"])

    def answer(call: Call) -> Reply | Streamed:
        replies: list[Reply | Streamed] = []
        started = time.monotonic()
        failure = _guard(lambda: replies.append(driver.answer(call)), call.method)
        _log.debug("%s took %.3f s", call.method, time.monotonic() - started)
        return failure if failure is not None else replies[0]

    ending = EndSignal()
    try:
        with running(PluginServer(listener, answer, _guard)):
            ending.wait()
    finally:
        socket.unlink(missing_ok=True)
        if alone:
            _guard(driver.end, "the end of the graph driver")


def _guard(action: Callable[[], None], what: str = "the graph driver") -> Reply | None:
    """Run an action; returns the reply that reports its failure, if it fails."""
    try:
        action()
    except CvmfsGraphdriverError as error:
        _log.warning("%s: %s", what, error)
        return {"Err": str(error)}
    except OSError as error:
        _log.warning("%s: %s", what, error)
        return {"Err": f"{what}: {error}"}
    except Exception as error:  # noqa: BLE001 - the outermost loop of a daemon: report it and continue
        _log.exception("%s failed unexpectedly", what)
        return {"Err": f"{what} failed unexpectedly: {error!r}; please report this with the plugin's log"}
    return None


def _become_init() -> None:
    """Continue in a child; this process supervises it until it has ended as requested."""
    requested = False

    def pass_on(number: int, _: object) -> None:
        nonlocal requested
        requested = True
        with suppress(ProcessLookupError):
            os.kill(child, number)

    while True:
        child = os.fork()
        if child == 0:
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        code = _wait_for(child)
        if requested or code == 0:
            os._exit(code & 0xFF)
        _log.error("the graph driver exited with %d and is restarted", code)
        time.sleep(_PAUSE)


def _wait_for(child: int) -> int:
    """Reap processes until ``child`` ends; returns its exit code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)
