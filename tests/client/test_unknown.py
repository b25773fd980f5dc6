"""Parameters that change nothing."""

import logging

import pytest

from cvmfs_graphdriver.client.setting import Setting
from cvmfs_graphdriver.client.unknown import unknown_parameters, warn_of_unknown


def test_misspelt_and_foreign_parameters_are_told_apart() -> None:
    names = ["CVMFS_TIMEOT", "CVMFS_TIMEOUT", "CVMFS_DEBUGLOG", "CVMFS_CACHE_hpc_TYPE", "CVMFS_XYZ", "PATH"]
    found = unknown_parameters({name: Setting("x", "f", 1) for name in names})
    assert [(unknown.name, unknown.elsewhere, unknown.meant) for unknown in found] == [
        ("CVMFS_CACHE_hpc_TYPE", True, ""),
        ("CVMFS_DEBUGLOG", True, ""),
        ("CVMFS_TIMEOT", False, "CVMFS_TIMEOUT"),
        ("CVMFS_XYZ", False, ""),
    ]


def test_each_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"CVMFS_ONLY_ONCE": Setting("x", "file", 3)}
    with caplog.at_level(logging.WARNING):
        warn_of_unknown(settings)
        warn_of_unknown(settings)
    assert [record.getMessage() for record in caplog.records] == [
        "CVMFS_ONLY_ONCE has no meaning here (file:3)"
    ]
