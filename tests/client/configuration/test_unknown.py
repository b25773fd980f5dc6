"""Parameters that change nothing."""

import logging
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.configuration.parameters import KNOWN_WITHOUT_MEANING, PARAMETERS
from cvmfs_graphdriver.client.configuration.search import load_configuration
from cvmfs_graphdriver.client.configuration.unknown import unknown_parameters, warn_of_ineffective
from cvmfs_graphdriver.shell.environment import Setting
from tests.support.project import PROJECT


def test_misspelt_and_foreign_parameters_are_told_apart() -> None:
    names = ["CVMFS_TIMEOT", "CVMFS_TIMEOUT", "CVMFS_TRACEFILE", "CVMFS_CACHE_hpc_TYPE", "CVMFS_XYZ", "PATH"]
    found = unknown_parameters({name: Setting("x", "f", 1) for name in names})
    assert [(unknown.name, unknown.elsewhere, unknown.meant) for unknown in found] == [
        ("CVMFS_CACHE_hpc_TYPE", True, ""),
        ("CVMFS_TIMEOT", False, "CVMFS_TIMEOUT"),
        ("CVMFS_TRACEFILE", True, ""),
        ("CVMFS_XYZ", False, ""),
    ]


def test_every_parameter_with_a_meaning_is_read_somewhere() -> None:
    sources = Path(PROJECT / "src").rglob("*.py")
    text = "".join(path.read_text() for path in sources if path.name != "parameters.py")
    for name in PARAMETERS:
        variable = name.replace("CVMFS_EXTERNAL_", "CVMFS_").replace("CVMFS_", "CVMFS_{kind}")
        assert f'"{name}"' in text or variable in text, name
    assert not KNOWN_WITHOUT_MEANING & PARAMETERS.keys()


def test_each_is_told_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "default.conf").write_text(
        f"CVMFS_CONFIG_REPOSITORY=config.org\nCVMFS_MOUNT_DIR={tmp_path}/cvmfs\nCVMFS_ONLY_ONCE=x\n"
    )
    shared = tmp_path / "cvmfs/config.org/etc/cvmfs/default.conf"
    shared.parent.mkdir(parents=True)
    shared.write_text("CVMFS_DEBUGLOG=/tmp/evil\n")
    configuration = load_configuration("a.org", tmp_path, {})
    with caplog.at_level(logging.WARNING):
        warn_of_ineffective(configuration)
        warn_of_ineffective(configuration)
    assert [record.getMessage() for record in caplog.records] == [
        f"CVMFS_DEBUGLOG ({shared}:1) is ignored: it decides where this node writes as root",
        f"CVMFS_ONLY_ONCE has no effect here ({tmp_path}/default.conf:3)",
    ]
