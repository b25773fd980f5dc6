"""The plugin's process as Docker runs it: process 1 of a PID namespace."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plugin_process import Plugin, running_plugin

pytestmark = pytest.mark.root


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory), as_init=True) as plugin,
    ):
        yield plugin


def kill_amidst_calls(plugin: Plugin, *identities: str) -> None:
    """Kill the driver as if it had been asked something of these layers, and had not answered."""
    (unanswered,) = plugin.base.rglob(".unanswered")
    assert list(unanswered.iterdir()) == [], "all calls were answered"
    (driver,) = children(plugin.pid)
    os.kill(driver, signal.SIGSTOP)
    for identity in identities:
        (unanswered / identity).touch()
    os.kill(driver, signal.SIGKILL)


def there(plugin: Plugin, *identities: str) -> list[bool]:
    return [plugin.call("GraphDriver.Exists", ID=identity)["Exists"] for identity in identities]


def test_a_killed_driver_is_started_again_by_process_1(plugin: Plugin) -> None:
    plugin.init()
    plugin.call("GraphDriver.Create", ID="base")
    init = plugin.pid
    (driver,) = children(init)
    os.kill(driver, signal.SIGKILL)
    assert plugin.call("GraphDriver.Exists", ID="base") == {"Exists": True}, "the call waits meanwhile"
    assert children(init) != [driver]
    assert "exited with -9 and is restarted" in plugin.log


def test_sigterm_ends_process_1_too(plugin: Plugin) -> None:
    assert plugin.kill(signal.SIGTERM) == 0


def test_layers_whose_calls_were_never_answered_are_nobodys(plugin: Plugin) -> None:
    plugin.init()
    for identity in ("base", "made", "removed"):
        plugin.call("GraphDriver.Create", ID=identity)
    kill_amidst_calls(plugin, "made", "removed")
    assert there(plugin, "base", "made", "removed") == [True, False, False]
    (unanswered,) = plugin.base.rglob(".unanswered")
    assert list(unanswered.iterdir()) == []


def test_a_layer_that_prepares_a_container_is_nobodys_once_its_mount_went_unanswered(plugin: Plugin) -> None:
    plugin.init()
    plugin.call("GraphDriver.Create", ID="base")
    for identity in ("given-init", "lost-init"):
        plugin.call("GraphDriver.CreateReadWrite", ID=identity, Parent="base")
        plugin.call("GraphDriver.Get", ID=identity, MountLabel="")
    kill_amidst_calls(plugin, "lost-init")
    assert there(plugin, "given-init", "lost-init") == [True, False]
    plugin.init()  # Docker begins anew, and knows no container for the other one either
    assert there(plugin, "given-init") == [False]
    names = [path.name for path in plugin.home.iterdir()]
    assert "base" in names
    assert not [name for name in names if name.endswith("-init")]
    assert not [name for name in names if name.startswith(".new")], "nothing resisted"
