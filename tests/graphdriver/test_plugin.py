"""The plugin's process as Docker runs it: process 1 of a PID namespace."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.graphdriver.plugin_process import running_plugin

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
        assert plugin.call("GraphDriver.Exists", ID="base") == {"Exists": True}, "the call waits meanwhile"
        assert children(init) != [driver]
        assert "ended with -9 and is started again" in plugin.log


def test_sigterm_ends_process_1_too() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory), as_init=True) as plugin,
    ):
        assert plugin.kill(signal.SIGTERM) == 0


def test_layers_whose_calls_were_never_answered_are_nobodys() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory), as_init=True) as plugin,
    ):
        plugin.init()
        for identity in ("base", "made", "removed"):
            plugin.call("GraphDriver.Create", ID=identity)
        (unanswered,) = Path(directory).rglob(".unanswered")
        assert list(unanswered.iterdir()) == [], "all calls were answered"
        (driver,) = children(plugin.pid)
        os.kill(driver, signal.SIGSTOP)
        for identity in ("made", "removed"):
            (unanswered / identity).touch()
        os.kill(driver, signal.SIGKILL)
        there = [plugin.call("GraphDriver.Exists", ID=each)["Exists"] for each in ("base", "made", "removed")]
        assert there == [True, False, False]
        assert list(unanswered.iterdir()) == []


def test_a_layer_that_prepares_a_container_is_nobodys_once_its_mount_went_unanswered() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory), as_init=True) as plugin,
    ):
        plugin.init()
        plugin.call("GraphDriver.Create", ID="base")
        for identity in ("given-init", "lost-init"):
            plugin.call("GraphDriver.CreateReadWrite", ID=identity, Parent="base")
            plugin.call("GraphDriver.Get", ID=identity, MountLabel="")
        (unanswered,) = Path(directory).rglob(".unanswered")
        assert list(unanswered.iterdir()) == [], "all calls were answered"
        (driver,) = children(plugin.pid)
        os.kill(driver, signal.SIGSTOP)
        (unanswered / "lost-init").touch()
        os.kill(driver, signal.SIGKILL)
        there = [plugin.call("GraphDriver.Exists", ID=each)["Exists"] for each in ("given-init", "lost-init")]
        assert there == [True, False]
        plugin.init()  # Docker begins anew, and knows no container for the other one either
        assert plugin.call("GraphDriver.Exists", ID="given-init") == {"Exists": False}
        (home,) = {path.parent for path in Path(directory).rglob("base")}
        assert not [path for path in home.iterdir() if path.name.endswith("-init")]
        assert not [path for path in home.iterdir() if path.name.startswith(".new")], "nothing resisted"
