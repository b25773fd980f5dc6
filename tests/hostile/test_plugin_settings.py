"""Invalid plugin settings: the plugin starts with the default and says so."""

import tempfile
from pathlib import Path

import pytest

from cvmfs_graphdriver.graphdriver.boot_wait import BOOT_WAIT
from cvmfs_graphdriver.graphdriver.settings import PluginSettings
from cvmfs_graphdriver.layers.mounts import IDLE
from cvmfs_graphdriver.planes.choice import Choice
from tests.support.plugin_process import running_plugin

DEFAULTS = PluginSettings("info", Choice.AUTO, IDLE, BOOT_WAIT, None, ())


def test_settings_that_are_empty_or_absent_have_defaults() -> None:
    assert PluginSettings.parse({}) == DEFAULTS
    assert PluginSettings.parse({"LOG_LEVEL": " ", "CACHE_QUOTA_MB": ""}) == DEFAULTS


def test_valid_settings_are_used() -> None:
    environment = {
        "LOG_LEVEL": "Debug",
        "DATA_PLANE": "FUSE",
        "IDLE_SECONDS": "5",
        "BOOT_WAIT_SECONDS": "0",
        "CACHE_QUOTA_MB": "0",
    }
    assert PluginSettings.parse(environment) == PluginSettings("debug", Choice.FUSE, 5.0, 0.0, 0, ())


@pytest.mark.parametrize(
    "setting",
    [
        "LOG_LEVEL=verbose",
        "DATA_PLANE=foo",
        "CACHE_QUOTA_MB=lots",
        "CACHE_QUOTA_MB=-1",
        "CACHE_QUOTA_MB=99999999999999999999",
        "IDLE_SECONDS=1e400",
        "IDLE_SECONDS=\u0663",
    ],
)
def test_an_invalid_value_is_replaced_by_the_default(setting: str) -> None:
    name, _, value = setting.partition("=")
    settings = PluginSettings.parse({name: value})
    (problem,) = settings.problems
    assert problem.startswith(setting + " is not ")
    assert (settings.level, settings.plane, settings.idle, settings.quota) == ("info", "auto", IDLE, None)


def test_escapes_are_not_shown() -> None:
    (problem,) = PluginSettings.parse({"LOG_LEVEL": "\x1b[2J\nx" + "y" * 1000}).problems
    assert problem.isprintable()
    assert len(problem) < 200


@pytest.mark.root
def test_the_plugin_starts_and_reports_invalid_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LOG_LEVEL", "verbose"), ("DATA_PLANE", "foo"), ("CACHE_QUOTA_MB", "lots")):
        monkeypatch.setenv(name, value)
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory)) as plugin,
    ):
        plugin.init()
        status = dict(plugin.call("GraphDriver.Status")["Status"])
        log = plugin.log
    assert "LOG_LEVEL=verbose is not one of error, warning, info, debug" in status["Degraded"]
    assert "DATA_PLANE=foo is not one of auto, fuse, erofs" in status["Degraded"]
    assert "CACHE_QUOTA_MB=lots is not a whole number" in status["Degraded"]
    assert "LOG_LEVEL=verbose is not one of" in log
