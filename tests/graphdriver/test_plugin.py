"""The plugin's process as Docker runs it: process 1 of a PID namespace."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.graphdriver.plugin_process import Plugin, running_plugin

pytestmark = pytest.mark.root


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_driver_is_started_again_by_process_1() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory), as_init=True) as plugin,
    ):
        plugin.init()
        plugin.call("GraphDriver.Create", ID="base")
        init = plugin.pid
        (driver,) = children(init)
        os.kill(driver, signal.SIGKILL)
        assert eventually_exists(plugin, "base")
        assert children(init) != [driver]
        assert "ended with -9 and is started again" in plugin.log


def test_sigterm_ends_process_1_too() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory), as_init=True) as plugin,
    ):
        assert plugin.kill(signal.SIGTERM) == 0


def eventually_exists(plugin: Plugin, identity: str) -> bool:
    deadline = time.monotonic() + 10
    while True:
        try:
            return bool(plugin.call("GraphDriver.Exists", ID=identity)["Exists"])
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
