"""How the process of a mounted repository behaves on its machine: where it logs, on which cores it runs.

Owns: the parameters of operation (CernVM-FS format reference, section 7.2) and their limits. Must not know:
who obeys them.
"""

import logging
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.reader import SettingReader

__all__ = ["OperationSettings", "operation_of"]

_MOST_OOM_SCORE = 1000
_LEVELS = {"": logging.INFO, "0": logging.INFO, "1": logging.DEBUG, "2": logging.INFO, "3": logging.WARNING}


class OperationSettings(NamedTuple):
    """``log_file`` instead of the system's log, or ``fallback_log`` where the system has none.

    ``facility`` is n of syslog's facility LOCALn, None for DAEMON; ``debug_log`` gets everything, whatever
    ``level``, one of logging's, lets through elsewhere. An empty ``cores`` stands for all.
    """

    log_file: Path | None
    fallback_log: Path
    level: int
    facility: int | None
    prefix: str
    debug_log: Path | None
    oom_score: int | None
    cores: frozenset[int]


def operation_of(reader: SettingReader, fallback_log: Path) -> OperationSettings:
    """Read them. Raises ConfigurationError: a value makes no sense."""
    level = reader.text("CVMFS_SYSLOG_LEVEL")
    if level not in _LEVELS:
        raise reader.refusal("CVMFS_SYSLOG_LEVEL", "is none of 0 to 3")
    facility = reader.text("CVMFS_SYSLOG_FACILITY")
    if facility and not (len(facility) == 1 and facility in "01234567"):
        raise reader.refusal("CVMFS_SYSLOG_FACILITY", "is none of 0 to 7, for LOCAL0 to LOCAL7")
    oom_score = reader.number("CVMFS_OOM_SCORE_ADJ", -1000) if reader.text("CVMFS_OOM_SCORE_ADJ") else None
    if oom_score is not None and oom_score > _MOST_OOM_SCORE:
        raise reader.refusal("CVMFS_OOM_SCORE_ADJ", "is no number from -1000 to 1000")
    try:
        cores = frozenset(int(word) for word in reader.words("CVMFS_CPU_AFFINITY", ","))
    except ValueError:
        raise reader.refusal("CVMFS_CPU_AFFINITY", "is no list of core numbers") from None
    return OperationSettings(
        log_file=reader.path("CVMFS_USYSLOG"),
        fallback_log=fallback_log,
        level=_LEVELS[level],
        facility=int(facility) if facility else None,
        prefix=reader.text("CVMFS_SYSLOG_PREFIX") or reader.fqrn,
        debug_log=reader.path("CVMFS_DEBUGLOG"),
        oom_score=oom_score,
        cores=cores,
    )
