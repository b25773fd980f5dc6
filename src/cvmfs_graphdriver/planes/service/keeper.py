"""The process that keeps a mount: it holds the descriptor of ``/dev/fuse`` and starts servers for it.

Owns: a mount's life. The kernel ends a FUSE mount when the last descriptor of it is closed; so this process
does nothing that could fail: it mounts, starts a server process, waits, and starts the next one if that
dies. Requests that the dead one had begun are in memory that all servers share. Who reads a file meanwhile
sees a pause; if no server can be started for as long as a transfer may take, an I/O error, until one can.
It ends when the repository is unmounted. Must not know: how a repository is served.

As a program (``spawn`` starts it) it reads a request as one line from standard input, and answers on standard
output with one line of JSON, when the repository is mounted or cannot be.
"""

import contextlib
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cvmfs_graphdriver.client.configuration.settings import load_settings
from cvmfs_graphdriver.client.errors import ClientError
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.fuse.device import mount_device, open_device, set_readahead
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight
from cvmfs_graphdriver.kernel.fuse.refusing import Refusing
from cvmfs_graphdriver.kernel.fuse.server import Server
from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, umount
from cvmfs_graphdriver.planes.errors import ServerError
from cvmfs_graphdriver.planes.service.process import log_as_told
from cvmfs_graphdriver.planes.service.request import MountRequest, no_longer_for_everybody, parse_answer
from cvmfs_graphdriver.planes.service.server import serve_repository

__all__ = ["keep", "main"]

_log = logging.getLogger(__name__)

_READAHEAD = 4 << 20
_GO = b"1"
_ANSWER = 65536
_GLANCE = 1000
"""Milliseconds between two looks at a server that lives."""
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0
_PATIENCE = 10.0
"""Seconds that a server must have lived for its successor to be started without delay."""
_STARTING = 30.0
"""Seconds that starting a server may take, where the configuration cannot be read that would say it."""


def keep(request: MountRequest, mounted: Callable[[], None]) -> None:
    """Mount, call ``mounted``, and return when the repository has been unmounted.

    Forks: to be called in a process without other threads. Raises MountPointError, ServerError, KernelError.
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

    A server and its keeper talk once, over a pair of sockets: the server says how the file system should be
    mounted, and the keeper says that it is, and that nobody else serves.
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
        self._ours, self._theirs = socket.socketpair()

    def start(self) -> dict[str, Any]:
        """Fork the first server; returns the options that it wants the file system mounted with."""
        self._fork()
        self._theirs.close()
        with self._ours.makefile("rb") as answers:
            return parse_answer(self._request.fqrn, answers.readline())

    def release(self) -> None:
        """Let the first server serve."""
        self._ours.sendall(_GO)
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
            if time.monotonic() - started > _PATIENCE:
                delay = 0.0
            delay = self._replace(code, delay, time.monotonic() + patience)
            if self._is_over():
                return

    def _replace(self, code: int, delay: float, deadline: float) -> float:
        """Start servers until one serves, or the file system is unmounted; returns the delay before the last.

        From the ``deadline`` on who waits for an answer gets an error.
        """
        while True:
            _log.error(
                "%s: the server ended with %d, starting another in %.1f s", self._request.fqrn, code, delay
            )
            time.sleep(delay)
            delay = min(2 * delay or _FIRST_DELAY, _LONGEST_DELAY)
            self._ours, self._theirs = socket.socketpair()
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
            code = failure

    def _await(self, deadline: float) -> int | None:
        """Wait for a server to begin; the exit code of one that ended instead."""
        descriptor = os.pidfd_open(self._server)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.register(self._ours, select.POLLIN)
            while True:
                left = max(0.0, deadline - time.monotonic())
                ready = dict(poll.poll(_GLANCE if self._refuser else min(_GLANCE, 1000 * left + 1)))
                if descriptor in ready or self._is_over():
                    os.kill(self._server, signal.SIGKILL)
                    return os.waitstatus_to_exitcode(os.waitpid(self._server, 0)[1])
                if self._ours.fileno() in ready:
                    if "suid" in json.loads(self._ours.recv(_ANSWER) or b"{}"):
                        return None
                    poll.unregister(self._ours)  # it says why it ends
                if not self._refuser and time.monotonic() >= deadline:
                    self._start_refusing()
        finally:
            os.close(descriptor)

    def _start_refusing(self) -> None:
        _log.critical(
            "%s: no server can be started; until one can, who uses it gets I/O errors", self._request.fqrn
        )
        self._refuser = os.fork()
        if self._refuser == 0:
            try:
                self._prepare()
                Server(self.device, Refusing(), self._inflight).serve()
            finally:
                os._exit(0)

    def _stop_refusing(self) -> None:
        """What was not answered yet is in memory for the next server."""
        if self._refuser:
            os.kill(self._refuser, signal.SIGKILL)
            os.waitpid(self._refuser, 0)
            self._refuser = 0

    def _wait(self) -> int:
        """Wait for the server's end; returns its exit code, or the negative number of a signal.

        A thread of a server that was killed may still wait, in the kernel, for a page that somebody is
        reading: until that READ is answered, which is the next server's work. So a server counts as ended
        when its first thread has.
        """
        descriptor = os.pidfd_open(self._server)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while True:
                poll.poll(_GLANCE)
                self._lingering = [pid for pid in self._lingering if not os.waitpid(pid, os.WNOHANG)[0]]
                ended, status = os.waitpid(self._server, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
                if _is_zombie(self._server):
                    self._lingering.append(self._server)
                    return -signal.SIGKILL
        finally:
            os.close(descriptor)

    def _prepare_log(self) -> float:
        """Log where its servers do. Only now, since reading the configuration takes its time.

        Returns how many seconds a transfer may take that has to be tried as often as configured.
        """
        request = self._request
        try:
            settings = load_settings(request.fqrn, request.etc, request.overrides)
            log_as_told(settings.operation)
        except ClientError:
            return _STARTING
        network = settings.network
        attempt = max(network.timeout, network.timeout_direct)
        return attempt + network.max_retries * (attempt + network.backoff_max)

    def unmount(self, *_: object) -> None:
        """A signal's handler: who uses the file system now may go on, then it ends."""
        with contextlib.suppress(MountError):
            umount(self._request.target, UmountFlag.DETACH | UmountFlag.NOFOLLOW)

    def _is_over(self) -> bool:
        """Whether the kernel has given the file system up."""
        poll = select.poll()
        poll.register(self.device, 0)
        return bool(poll.poll(0))

    def _fork(self) -> None:
        self._server = os.fork()
        if self._server == 0:
            self._serve()

    def _serve(self) -> NoReturn:
        """The life of a server."""
        code = 1
        try:
            self._prepare()
            serve_repository(self._request, self.device, self._inflight, self._ready)
            code = 0
        except CvmfsGraphdriverError as error:
            _log.error("%s", error)
            code = error.exit_code
            self._tell({"error": str(error), "code": code})
        except BaseException:  # noqa: BLE001 - the outermost loop of a process
            _log.exception("the server of %s failed", self._request.fqrn)
        finally:
            os._exit(code)

    def _prepare(self) -> None:
        """What a server must not have in common with its keeper."""
        self._ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the keeper
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        threading.excepthook = _die

    def _ready(self, options: dict[str, bool]) -> None:
        """Ask the keeper to mount, if it is not, and wait until it has.

        Raises ServerError: everybody may use the mount, and the repository is no longer for everybody.
        """
        if self.everybody and not options["everybody"] and not self._request.shows_layers:
            raise no_longer_for_everybody(self._request.fqrn)
        self._tell(options)
        if self._theirs.recv(1) != _GO:
            os._exit(1)

    def _tell(self, values: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is told of the beginning alone
            self._theirs.sendall(json.dumps(values).encode() + b"\n")


def _is_zombie(process: int) -> bool:
    """Whether the first thread of a child has ended."""
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"


def _die(failure: threading.ExceptHookArgs) -> None:
    """A thread that ends by an error would be missing for ever: better a new server."""
    _log.critical("thread %s failed", failure.thread, exc_info=failure.exc_value)
    os._exit(1)


def main() -> None:
    """The program."""
    gc.freeze()  # what was imported stays; ``spawn`` has let nobody look through it yet
    gc.enable()
    request = MountRequest.parse(sys.stdin.buffer.readline())
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)

    def answer(values: dict[str, Any]) -> None:
        os.write(answers, json.dumps(values).encode() + b"\n")
        os.close(answers)

    try:
        keep(request, lambda: answer({}))
    except CvmfsGraphdriverError as error:
        code = error.reason_code if isinstance(error, ServerError) else error.exit_code
        answer({"error": str(error), "code": code})
        sys.exit(code)
