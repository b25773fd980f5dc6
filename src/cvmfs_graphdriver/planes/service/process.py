"""Operation of a process that serves a repository: where it logs, its CPU cores, its OOM score.

Owns: applying ``OperationSettings``. A setting that cannot be applied is logged, and the repository is served
nevertheless. Must not know: what is served.
"""

import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

from cvmfs_graphdriver.client.configuration.operation import OperationSettings
from cvmfs_graphdriver.kernel.logline import LineFormatter

__all__ = ["MEMORY_LIMIT", "configure_logging", "configure_process"]

_SYSTEM_LOG = "/dev/log"
_FILE_SIZE = 500_000
MEMORY_LIMIT = 2 << 30
"""Bytes that a server may allocate, stacks included: whatever a repository holds, the machine survives it."""
_log = logging.getLogger(__name__)


def configure_logging(settings: OperationSettings) -> None:
    """Log as configured, unless logging has already been set up for a terminal."""
    root = logging.getLogger()
    if root.handlers:
        return
    in_system = settings.log_file is None and os.path.exists(_SYSTEM_LOG)
    main = _WhenNeeded(lambda: _system_log(settings) if in_system else _file_log(settings))
    main.setLevel(settings.level)
    _add(main, settings, date=not in_system)
    if settings.debug_log is not None:
        _add(logging.FileHandler(settings.debug_log, delay=True), settings, date=True)
    root.setLevel(logging.DEBUG if settings.debug_log else settings.level)


def configure_process(settings: OperationSettings) -> None:
    """Set the CPU cores, the memory limit, and how early the kernel kills this process without memory."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    try:
        if settings.cores:
            os.sched_setaffinity(0, settings.cores)
        if settings.oom_score is not None:
            Path("/proc/self/oom_score_adj").write_text(f"{settings.oom_score}\n")
    except OSError as error:
        _log.warning("cannot apply CVMFS_CPU_AFFINITY or CVMFS_OOM_SCORE_ADJ: %s", error.strerror)


class _WhenNeeded(logging.Handler):
    """A handler created with the first record: importing it would delay each mount by 4 ms."""

    def __init__(self, make: Callable[[], logging.Handler]) -> None:
        super().__init__()
        self._make = make
        self._made: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._made is None:
                self._made = self._make()
                self._made.setFormatter(self.formatter)
            self._made.handle(record)
        except Exception:  # noqa: BLE001 - logging must never fail, as with the standard handlers
            self.handleError(record)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
        super().close()


def _add(handler: logging.Handler, settings: OperationSettings, *, date: bool) -> None:
    when = "%(asctime)s " if date else ""
    handler.setFormatter(
        LineFormatter(f"{when}cvmfs-graphdriver[%(process)d]: ({settings.prefix}) %(message)s")
    )
    logging.getLogger().addHandler(handler)


def _system_log(settings: OperationSettings) -> logging.Handler:
    from logging.handlers import SysLogHandler

    facility = SysLogHandler.LOG_DAEMON
    if settings.facility is not None:
        facility = SysLogHandler.LOG_LOCAL0 + settings.facility
    return SysLogHandler(_SYSTEM_LOG, facility)


def _file_log(settings: OperationSettings) -> logging.Handler:
    from logging.handlers import RotatingFileHandler

    file = settings.log_file or settings.fallback_log
    return RotatingFileHandler(file, maxBytes=_FILE_SIZE, backupCount=1, delay=True)
