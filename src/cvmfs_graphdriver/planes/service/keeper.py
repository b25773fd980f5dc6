"""The process that keeps a mount: it holds the descriptor of ``/dev/fuse`` and starts servers for it.

Owns: the life of a mount. The kernel ends a FUSE mount when its last descriptor is closed, so this process
does nothing that could fail: it mounts, starts a server process, waits, and starts another if that one dies.
Requests that the dead server had begun are in memory shared by all servers. Readers see a pause meanwhile; if
no server can be started within the time that a transfer may take, they get I/O errors until one can. The
keeper ends when the repository is unmounted. Must not know: how a repository is served.

As a program (started by ``spawn``) it receives a request from standard input, and sends an answer to standard
output when the repository is mounted or cannot be.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.errors import ClientError
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.fuse.device import mount_device, open_device, set_readahead
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight
from cvmfs_graphdriver.kernel.fuse.refusing import Refusing
from cvmfs_graphdriver.kernel.fuse.server import Server
from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, umount
from cvmfs_graphdriver.planes.errors import ServerError
from cvmfs_graphdriver.planes.service.process import configure_logging
from cvmfs_graphdriver.planes.service.request import (
    MountRequest,
    no_longer_for_everybody,
    receive_answer,
    refusal,
)
from cvmfs_graphdriver.planes.service.server import serve_repository
from cvmfs_graphdriver.planes.service.trials import Trials
from cvmfs_graphdriver.planes.service.vitals import Vitals

__all__ = ["keep", "main"]

_log = logging.getLogger(__name__)

_READAHEAD = 4 << 20
_GO = "go"
_GLANCE = 1000
"""Milliseconds between two checks of a running server."""
_SILENCE = 12
"""So many checks in a row that find no sign of life of a server end it; counted, since all may have slept."""
_CRASHED = 1
"""The exit code of a server that an unexpected error ended."""
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0
_PATIENCE = 10.0
"""Seconds that a server must have run for its successor to be started without delay."""
_STARTING = 30.0
"""Seconds that starting a server may take if the configuration, which would say so, cannot be read."""


def keep(request: MountRequest, mounted: Callable[[], None]) -> None:
    """Mount, call ``mounted``, and return when the repository has been unmounted.

    Call it in a process without other threads, since it forks. Raises MountPointError, ServerError,
    KernelError.
    """
    request.check_target()
    keeper = _Keeper(request)
    options = keeper.start()
    flags = MountFlag.READ_ONLY | MountFlag.NODEV
    mount_device(
        keeper.device,
        request.target,
        source="cvmfs-graphdriver",
        subtype="cvmfs",
        flags=flags if options["suid"] else flags | MountFlag.NOSUID,
        default_permissions=bool(options["check_permissions"]),
        allow_other=bool(options["everybody"]),
    )
    keeper.everybody = bool(options["everybody"])
    keeper.release()
    set_readahead(request.target, _READAHEAD)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, keeper.unmount)
    mounted()
    keeper.watch()


class _Keeper:
    """A device, and the server that answers for it now.

    A server and its keeper talk once, over a channel: the server says how to mount the file system, and the
    keeper says that it is mounted and that no other server is running.
    """

    def __init__(self, request: MountRequest) -> None:
        self._request = request
        self.device = open_device()
        self.everybody = False
        """Whether everybody may use the mount; the kernel lets only root do so otherwise."""
        self._inflight = InFlight(request.threads)
        self._server = 0
        self._refuser = 0
        self._lingering: list[int] = []
        self._vitals = Vitals()
        self._trials = Trials()
        self._beats = self._silent = 0
        self._has_hung = False
        """Whether the server has been ended because it gave no sign of life."""
        self._ours, self._theirs = Channel.pair()

    def start(self) -> dict[str, Any]:
        """Fork the first server; returns the options to mount the file system with."""
        self._fork()
        self._theirs.close()
        while self._ours.is_quiet(_GLANCE / 1000):
            if self._is_silent():
                os.kill(self._server, signal.SIGKILL)  # then the channel ends
        return receive_answer(self._request.fqrn, self._ours)

    def release(self) -> None:
        """Let the first server serve."""
        self._ours.send(_GO)
        self._ours.close()

    def watch(self) -> None:
        """Start a new server whenever one dies; return when the file system is no longer mounted."""
        delay = 0.0
        while True:
            started = time.monotonic()
            code = self._wait()
            if code == 0 or self._is_over():
                return
            patience = self._prepare_log()
            self._inflight.blame(killed=code == -signal.SIGKILL and not self._has_hung)
            if code < 0 or code == _CRASHED:
                self._judge()
            if time.monotonic() - started > _PATIENCE:
                delay = 0.0
            delay = self._replace(code, delay, time.monotonic() + patience)
            if self._is_over():
                return

    def _replace(self, code: int, delay: float, deadline: float) -> float:
        """Start servers until one serves, or the file system is unmounted; returns the delay before the last.

        From the ``deadline`` on, requests are answered with errors.
        """
        while True:
            _log.error(
                "%s: the server ended with %d, starting another in %.1f s", self._request.fqrn, code, delay
            )
            time.sleep(delay)
            delay = min(2 * delay or _FIRST_DELAY, _LONGEST_DELAY)
            self._ours, self._theirs = Channel.pair()
            self._fork()
            self._theirs.close()
            failure = self._await(deadline)
            if failure is None:
                self._stop_refusing()
                self.release()
                return delay
            self._ours.close()
            if self._is_over():
                self._stop_refusing()
                return delay
            if failure < 0 or failure == _CRASHED:
                self._judge()
            code = failure

    def _judge(self) -> None:
        """A server died: was it of the revision that it showed?"""
        shown = self._vitals.shown
        instead = self._trials.died(shown, time.monotonic())
        if shown is not None and instead:
            _log.critical(
                "%s: servers die of the revision with root catalog %s again and again; showing the last one "
                "that worked, with root catalog %s",
                self._request.fqrn,
                shown.root,
                instead,
            )

    def _is_silent(self) -> bool:
        """Whether the server has given no sign of life for long. Call it once for each glance."""
        beats = self._vitals.beats
        self._silent = self._silent + 1 if beats == self._beats else 0
        self._beats = beats
        if self._silent < _SILENCE:
            return False
        self._prepare_log()
        _log.error("%s: the server gives no sign of life, it is ended", self._request.fqrn)
        self._has_hung = True
        self._silent = 0
        return True

    def _await(self, deadline: float) -> int | None:
        """Wait for a server to begin; returns its exit code if it ended instead."""
        descriptor = os.pidfd_open(self._server)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.register(self._ours, select.POLLIN)
            while True:
                left = max(0.0, deadline - time.monotonic())
                ready = dict(poll.poll(_GLANCE if self._refuser else min(_GLANCE, 1000 * left + 1)))
                if descriptor in ready or self._is_over() or (not ready and self._is_silent()):
                    os.kill(self._server, signal.SIGKILL)
                    select.select([descriptor], [], [], _GLANCE / 1000)
                    code = self._ended(descriptor)
                    return -signal.SIGKILL if code is None else code
                if self._ours.fileno() in ready:
                    if self._is_ready():
                        return None
                    poll.unregister(self._ours)  # it is about to end
                if not self._refuser and time.monotonic() >= deadline:
                    self._start_refusing()
        finally:
            os.close(descriptor)

    def _is_ready(self) -> bool:
        """Whether the server's answer is that it can serve."""
        try:
            receive_answer(self._request.fqrn, self._ours)
        except ServerError:
            return False
        return True

    def _start_refusing(self) -> None:
        _log.critical(
            "%s: cannot start a server; until one starts, all access fails with I/O errors",
            self._request.fqrn,
        )
        self._refuser = os.fork()
        if self._refuser == 0:
            try:
                self._prepare()
                Server(self.device, Refusing(), self._inflight).serve()
            finally:
                os._exit(0)

    def _stop_refusing(self) -> None:
        """Requests that were not answered yet are in memory for the next server."""
        if self._refuser:
            os.kill(self._refuser, signal.SIGKILL)
            os.waitpid(self._refuser, 0)
            self._refuser = 0

    def _wait(self) -> int:
        """Wait for the server to end; returns its exit code, or the negative number of a signal.

        A thread of a killed server may still wait, in the kernel, for a page that somebody is reading, until
        that READ is answered, which is up to the next server. So a server counts as ended as soon as its
        first thread has.
        """
        descriptor = os.pidfd_open(self._server)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while True:
                ended = poll.poll(_GLANCE)
                if not ended and self._is_silent():
                    os.kill(self._server, signal.SIGKILL)
                self._trials.alive(self._vitals.shown, time.monotonic())
                self._lingering = [pid for pid in self._lingering if not os.waitpid(pid, os.WNOHANG)[0]]
                code = self._ended(descriptor)
                if code is not None:
                    return code
        finally:
            os.close(descriptor)

    def _ended(self, descriptor: int) -> int | None:
        """The exit code of the server if it has ended, or at least its first thread."""
        for _ in range(2):  # other threads may just be ending, and one may be about to fill its slot
            gone, status = os.waitpid(self._server, os.WNOHANG)
            if gone:
                return os.waitstatus_to_exitcode(status)
            if not _is_zombie(self._server):
                return None
            select.select([descriptor], [], [], _GLANCE / 1000)
        self._lingering.append(self._server)
        return -signal.SIGKILL

    def _prepare_log(self) -> float:
        """Log where the servers do. It is done this late because reading the configuration takes time.

        Returns how many seconds a transfer may take with all the retries that are configured.
        """
        request = self._request
        try:
            settings = load_settings(request.fqrn, request.etc, request.overrides)
            configure_logging(settings.operation)
        except ClientError:
            return _STARTING
        network = settings.network
        attempt = max(network.timeout, network.timeout_direct)
        return attempt + network.max_retries * (attempt + network.backoff_max)

    def unmount(self, *_: object) -> None:
        """Handle a signal: unmount; those who are using the file system can go on until they are done."""
        with contextlib.suppress(MountError):
            umount(self._request.target, UmountFlag.DETACH | UmountFlag.NOFOLLOW)

    def _is_over(self) -> bool:
        """Whether the kernel has ended the file system."""
        poll = select.poll()
        poll.register(self.device, 0)
        return bool(poll.poll(0))

    def _fork(self) -> None:
        self._vitals.clear()
        self._has_hung = False
        self._server = os.fork()
        if self._server == 0:
            self._serve()

    def _serve(self) -> NoReturn:
        """The life of a server."""
        code = _CRASHED
        try:
            self._prepare()
            serve_repository(
                self._request, self.device, self._inflight, self._ready, self._vitals, self._trials.retreat
            )
            code = 0
        except CvmfsGraphdriverError as error:
            _log.error("%s", error)
            code = error.exit_code
            self._tell(refusal(error, code))
        except BaseException:  # noqa: BLE001 - the outermost loop of a process
            _log.exception("the server of %s failed", self._request.fqrn)
        finally:
            os._exit(code)

    def _prepare(self) -> None:
        """Let go of what a server must not share with its keeper."""
        self._ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the keeper
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        threading.excepthook = _die

    def _ready(self, options: dict[str, bool]) -> None:
        """Ask the keeper to mount, if it has not yet, and wait until it has.

        Raises ServerError: everybody may use the mount, and the repository is no longer for everybody.
        """
        if self.everybody and not options["everybody"] and not self._request.shows_layers:
            raise no_longer_for_everybody(self._request.fqrn)
        self._tell(options)
        try:
            self._theirs.receive()
        except EOFError:
            os._exit(1)

    def _tell(self, answer: Mapping[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the keeper listens only until the server is ready
            self._theirs.send(answer)


def _is_zombie(process: int) -> bool:
    """Whether the first thread of a child has ended."""
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"


def _die(failure: threading.ExceptHookArgs) -> None:
    """A thread that died would be missing for ever: better a new server."""
    try:
        _log.critical("thread %s failed", failure.thread, exc_info=failure.exc_value)
    finally:  # perhaps there is no memory for a line in the log
        os._exit(_CRASHED)


def main() -> None:
    """The program."""
    gc.freeze()  # imported modules stay; ``spawn`` has switched the collector off until here
    gc.enable()
    channel = Channel.of_child()
    request = MountRequest.of_message(channel.receive())
    try:
        keep(request, lambda: channel.send({}))
    except CvmfsGraphdriverError as error:
        code = error.reason_code if isinstance(error, ServerError) else error.exit_code
        channel.send(refusal(error, code))
        sys.exit(code)
