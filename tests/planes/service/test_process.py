"""What a serving process makes of itself, seen from outside."""

import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.configuration.operation import OperationSettings
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.planes.service import process
from cvmfs_graphdriver.planes.service.process import configure_logging
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from tests.support.entries import directory
from tests.support.mounts import end, pids_serving, wait_until
from tests.support.published import FQRN, Published, published

DEFAULTS = OperationSettings(None, Path("/nowhere/log"), logging.INFO, None, FQRN, None, None, frozenset())


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    with published(tmp_path / "repository") as repository:
        repository.publish({b"/d": [directory("")]})
        yield repository


@contextmanager
def nothing_set_up() -> Iterator[logging.Logger]:
    """Logging as it is in a process that has just begun."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers = before
    root.setLevel(level)


@pytest.mark.root
def test_a_server_does_as_the_configuration_says(repository: Published, tmp_path: Path) -> None:
    target, log = tmp_path / "mnt", tmp_path / "log"
    target.mkdir()
    core = min(os.sched_getaffinity(0))
    told = {"CVMFS_USYSLOG": str(log), "CVMFS_CPU_AFFINITY": str(core), "CVMFS_OOM_SCORE_ADJ": "321"}
    spawn(MountRequest(FQRN, target, repository.etc, overrides=told))
    try:
        server = pids_serving(target)[-1]
        assert os.sched_getaffinity(server) == {core}
        assert Path(f"/proc/{server}/oom_score_adj").read_text() == "321\n"
        assert resource.prlimit(server, resource.RLIMIT_DATA)[0] == process.MEMORY_LIMIT
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: log.is_file() and "the server ended with -9" in log.read_text())
        assert f"]: ({FQRN}) {FQRN}: the server ended" in log.read_text()
    finally:
        end(target)


def test_to_the_systems_log_in_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "dev-log"
    monkeypatch.setattr(process, "_SYSTEM_LOG", str(place))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system, nothing_set_up() as root:
        system.bind(str(place))
        system.settimeout(10)
        configure_logging(
            OperationSettings(None, tmp_path / "log", logging.WARNING, 3, "mine", None, None, frozenset())
        )
        root.info("not this")
        root.warning("but this")
        said = system.recv(1000)
    local3_warning = (16 + 3) * 8 + 4
    assert said == b"<%d>cvmfs-graphdriver[%d]: (mine) but this\x00" % (local3_warning, os.getpid())


def test_without_a_systems_log_to_a_file_and_all_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_SYSTEM_LOG", str(tmp_path / "nothing"))
    log, debug = tmp_path / "log", tmp_path / "debug"
    with nothing_set_up() as root:
        configure_logging(OperationSettings(None, log, logging.INFO, None, "mine", debug, None, frozenset()))
        root.debug("a detail")
        root.info("news")
    assert [line.split(") ")[1] for line in log.read_text().splitlines()] == ["news"]
    assert [line.split(") ")[1] for line in debug.read_text().splitlines()] == ["a detail", "news"]


def test_a_terminal_is_left_alone() -> None:
    terminal = logging.NullHandler()
    with nothing_set_up() as root:
        root.addHandler(terminal)
        configure_logging(DEFAULTS)
        assert root.handlers == [terminal]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVMFS_SYSLOG_LEVEL", "9"),
        ("CVMFS_SYSLOG_FACILITY", "8"),
        ("CVMFS_CPU_AFFINITY", "0,x"),
        ("CVMFS_OOM_SCORE_ADJ", "1001"),
        ("CVMFS_USYSLOG", "relative"),
    ],
)
def test_values_without_sense_are_refused(repository: Published, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        repository.settings(**{name: value})
