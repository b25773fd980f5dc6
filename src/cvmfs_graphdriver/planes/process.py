"""What a process that serves a repository makes of itself: where it logs, its cores, its place in the queue.

Owns: obeying the settings of operation; one that cannot be obeyed is told, and the repository is served all
the same. Must not know: what is served.
"""

import logging
import logging.handlers
import os
from pathlib import Path

from cvmfs_graphdriver.client.operation import OperationSettings

__all__ = ["log_as_told", "run_as_told"]

_SYSTEM_LOG = "/dev/log"
_LOCAL0 = logging.handlers.SysLogHandler.LOG_LOCAL0
_FILE_SIZE = 500_000
_log = logging.getLogger(__name__)


def log_as_told(settings: OperationSettings) -> None:
    """Log where the settings say, unless somebody set up logging before, for a terminal."""
    root = logging.getLogger()
    if root.handlers:
        return
    handlers = [_main_handler(settings)]
    handlers[0].setLevel(settings.level)
    if settings.debug_log is not None:
        handlers.append(logging.FileHandler(settings.debug_log, delay=True))
    for handler in handlers:
        date = "" if isinstance(handler, logging.handlers.SysLogHandler) else "%(asctime)s "
        handler.setFormatter(
            logging.Formatter(f"{date}cvmfs-graphdriver[%(process)d]: ({settings.prefix}) %(message)s")
        )
        root.addHandler(handler)
    root.setLevel(logging.DEBUG if settings.debug_log else settings.level)


def run_as_told(settings: OperationSettings) -> None:
    """Choose the cores, and how early the kernel ends this process when memory runs out."""
    try:
        if settings.cores:
            os.sched_setaffinity(0, settings.cores)
        if settings.oom_score is not None:
            Path("/proc/self/oom_score_adj").write_text(f"{settings.oom_score}\n")
    except OSError as error:
        _log.warning("CVMFS_CPU_AFFINITY or CVMFS_OOM_SCORE_ADJ cannot be obeyed: %s", error.strerror)


def _main_handler(settings: OperationSettings) -> logging.Handler:
    if settings.log_file is None and os.path.exists(_SYSTEM_LOG):
        facility = logging.handlers.SysLogHandler.LOG_DAEMON
        if settings.facility is not None:
            facility = _LOCAL0 + settings.facility
        return logging.handlers.SysLogHandler(_SYSTEM_LOG, facility)
    file = settings.log_file or settings.fallback_log
    return logging.handlers.RotatingFileHandler(file, maxBytes=_FILE_SIZE, backupCount=1, delay=True)
