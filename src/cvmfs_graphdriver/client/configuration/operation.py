"""How the process that serves a repository behaves on its machine: where it logs, on which cores it runs.

Owns: the operational parameters (CernVM-FS format reference, section 7.2) and their limits. Must not know:
how they are put into effect.
"""

import logging
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.configuration.reader import SettingReader

__all__ = ["OperationSettings", "operation_of"]

_MOST_OOM_SCORE = 1000
_LEVELS = {"": logging.INFO, "0": logging.INFO, "1": logging.DEBUG, "2": logging.INFO, "3": logging.WARNING}


class OperationSettings(NamedTuple):
    """``log_file`` replaces the system's log, ``fallback_log`` is used where the system has none.

    ``facility`` is the n of syslog's LOCALn, None for DAEMON. ``level``, one of ``logging``'s, does not apply
    to ``debug_log``, which receives everything. An empty ``cores`` means all.
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
    """Read the operational parameters. Raises ConfigurationError: a value is invalid."""
    level = reader.text("CVMFS_SYSLOG_LEVEL")
    if level not in _LEVELS:
        raise reader.refusal("CVMFS_SYSLOG_LEVEL", "must be 0 to 3")
    facility = reader.text("CVMFS_SYSLOG_FACILITY")
    if facility and not (len(facility) == 1 and facility in "01234567"):
        raise reader.refusal("CVMFS_SYSLOG_FACILITY", "must be 0 to 7, for LOCAL0 to LOCAL7")
    oom_score = reader.number("CVMFS_OOM_SCORE_ADJ", -1000) if reader.text("CVMFS_OOM_SCORE_ADJ") else None
    if oom_score is not None and oom_score > _MOST_OOM_SCORE:
        raise reader.refusal("CVMFS_OOM_SCORE_ADJ", "must be a number from -1000 to 1000")
    try:
        cores = frozenset(int(word) for word in reader.words("CVMFS_CPU_AFFINITY", ","))
    except ValueError:
        raise reader.refusal("CVMFS_CPU_AFFINITY", "is not a list of core numbers") from None
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
