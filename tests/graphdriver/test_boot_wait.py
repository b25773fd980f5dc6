"""A node whose network comes up after Docker: the plugin as a process, a repository that appears later."""

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.server import serve
from demo.daemons import free_port
from tests.graphdriver.conftest import FQRN
from tests.graphdriver.test_driver import configure, thin
from tests.support.plugin_process import Plugin, RefusedError, running_plugin
from tests.support.tars import tar_of

pytestmark = pytest.mark.root

_CONTAINERS = 8


@contextmanager
def booted(where: tuple[str, Path]) -> Iterator[tuple[Plugin, int]]:
    """A plugin that has just started, with containers of a repository whose server is down; its port."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory)) as plugin,
    ):
        configure(plugin, (f"http://127.0.0.1:{port}", where[1]))
        plugin.init()
        plugin.call("GraphDriver.Create", ID="thin")
        plugin.apply("thin", thin(f"cvmfs://{FQRN}/layers/aa"))
        for number in range(_CONTAINERS):
            plugin.call("GraphDriver.CreateReadWrite", ID=f"rw{number}", Parent="thin")
        plugin.call("GraphDriver.Create", ID="normal")
        plugin.apply("normal", tar_of(("file", b"x")))
        plugin.call("GraphDriver.CreateReadWrite", ID="other", Parent="normal")
        yield plugin, port


def test_containers_wait_for_the_network_and_hold_nobody_up(repository: tuple[str, Path]) -> None:
    with booted(repository) as (plugin, port), ThreadPoolExecutor(_CONTAINERS) as threads:
        waiting = [threads.submit(plugin.call, "GraphDriver.Get", ID=f"rw{n}") for n in range(_CONTAINERS)]
        started = time.monotonic()
        while time.monotonic() - started < 4:
            begun = time.monotonic()
            plugin.call("GraphDriver.Exists", ID="rw0")
            plugin.call("GraphDriver.Status")
            plugin.call("GraphDriver.Get", ID="other")
            plugin.call("GraphDriver.Put", ID="other")
            assert time.monotonic() - begun < 2
            time.sleep(0.2)
        assert not any(each.done() for each in waiting)
        with serve(repository[1].parent.parent, port=port):
            for each in waiting:
                merged = Path(each.result(15)["Dir"])
                assert (merged / "base").read_bytes() == b"from the base\n"
        assert plugin.log.count("waiting up to 30 s, since this is the start: ") == 1


def test_the_wait_has_an_end_and_is_shared(
    repository: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOT_WAIT_SECONDS", "3")
    errors: list[RefusedError] = []

    def get(plugin: Plugin, number: int) -> None:
        try:
            plugin.call("GraphDriver.Get", ID=f"rw{number}")
        except RefusedError as error:
            errors.append(error)

    with booted(repository) as (plugin, _):
        threads = [threading.Thread(target=get, args=(plugin, number)) for number in range(_CONTAINERS)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 2 < time.monotonic() - started < 15
        assert len(errors) == _CONTAINERS
        assert all("the server cannot be reached" in str(error) for error in errors)
        started = time.monotonic()
        get(plugin, 0)  # as Docker does: it tries the same container more than once
        assert time.monotonic() - started < 3


def test_errors_that_stay_are_reported_at_once(repository: tuple[str, Path]) -> None:
    with booted(repository) as (plugin, _):
        (plugin.etc / "config.d" / f"{FQRN}.conf").unlink()
        started = time.monotonic()
        with pytest.raises(RefusedError, match="CVMFS_"):
            plugin.call("GraphDriver.Get", ID="rw0")
        assert time.monotonic() - started < 10
