"""A node's life through Docker: settings, what docker info says, release, a dead network, an upgrade."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from demo.daemons import DaemonError, DockerEngine, free_port, plugin_tarball
from demo.installation import Installation
from tests.end_to_end.conftest import Scene
from tests.support.engines import Plugins
from tests.support.mounts import wait_until
from tests.support.project import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.docker]


@pytest.fixture(scope="module")
def etc(scene: Scene) -> Path:
    """The administrator's own directory of configuration."""
    made = scene.stage.scratch / "own-etc"
    shutil.copytree(scene.stage.etc, made)
    return made


@pytest.fixture(scope="module")
def engine(scene: Scene, etc: Path) -> Iterator[DockerEngine]:
    settings = ("CACHE_QUOTA_MB=1500", "IDLE_SECONDS=1", "LOG_LEVEL=debug")
    with DockerEngine(scene.stage.scratch, "life") as made:
        made.start_with_plugin(plugin_tarball(PROJECT), etc, settings=settings)
        yield made


def test_installing_again_as_the_message_says(
    scene: Scene, plugins: Plugins, installation: Installation
) -> None:
    with plugins.engine(scene.stage.scratch, "again", scene.stage.etc, installation=installation) as engine:
        engine.docker("pull", "--quiet", scene.thin)
        engine.docker("run", "--name", "old", "--network", "none", scene.thin, "true")
        engine.stop()
        engine.start("overlay2")
        engine.docker("plugin", "disable", "--force", "cvmfs")
        engine.docker("plugin", "rm", "cvmfs")
        engine.install_plugin(plugin_tarball(PROJECT), scene.stage.etc)
        engine.stop()
        engine.start("cvmfs")
        engine.docker("pull", "--quiet", scene.thin)  # it does nothing: Docker believes to have the layers
        with pytest.raises(DaemonError, match="is not on this disk") as failed:
            engine.run(scene.thin, "true")
        (listed,) = re.findall(r"rm -r (/var/lib/docker/\S+)\)", str(failed.value))
        engine.stop()
        shutil.rmtree(engine.directory / "data" / Path(listed).relative_to("/var/lib/docker"))
        engine.start("cvmfs")
        engine.docker("pull", "--quiet", scene.thin)
        assert engine.run(scene.thin, "echo", "well") == b"well\n"
        assert engine.docker("ps", "--all", "--quiet") == ""


def info(engine: DockerEngine) -> dict[str, str]:
    return dict(json.loads(engine.docker("info", "--format", "{{json .DriverStatus}}")))


def test_settings_and_what_docker_info_says(engine: DockerEngine, scene: Scene, etc: Path) -> None:
    settings = json.loads(engine.docker("plugin", "inspect", "cvmfs"))[0]["Settings"]
    assert {"CACHE_QUOTA_MB=1500", "IDLE_SECONDS=1", "LOG_LEVEL=debug"} <= set(settings["Env"])
    assert settings["Mounts"][0]["Source"] == str(etc)
    with pytest.raises(DaemonError, match="cannot set on an active plugin"):
        engine.docker("plugin", "set", "cvmfs", "LOG_LEVEL=info")
    rows = info(engine)
    assert rows["Cache"].endswith(", quota 1500 MiB")
    assert rows["Degraded"] == "no"
    assert rows["Size Limits"].startswith(("no: ", "yes"))

    engine.docker("pull", "--quiet", scene.thin)
    name = engine.docker("run", "--detach", "--network", "none", scene.thin, "sleep", "600")
    rows = info(engine)
    (shown,) = (value for key, value in rows.items() if key.startswith("Repository "))
    assert "revision " in shown
    assert " old, next check in " in shown
    assert "from http://127.0.0.1:" in shown
    assert rows["Cache"].endswith(" of 1500 MiB")

    time.sleep(3)  # it is in use, however long it is idle
    assert any(key.startswith("Repository ") for key in info(engine))
    engine.docker("rm", "--force", name)
    wait_until(lambda: not any(key.startswith("Repository ") for key in info(engine)), 30)
    assert "GraphDriver.Put took " in engine.log.read_text()


def test_nothing_waits_for_a_dead_network(engine: DockerEngine, scene: Scene, etc: Path) -> None:
    """The daemon starts, tells how it is, and runs normal images; a thin one is refused in time."""
    engine.docker("pull", "--quiet", scene.normal)
    engine.stop()
    for cache in engine.plugin_home().glob("*/cache"):
        shutil.rmtree(cache)
    config = etc / "default.local"
    before = config.read_text()
    config.write_text(
        f"{before}\nCVMFS_HTTP_PROXY='http://127.0.0.1:{free_port()}|http://127.0.0.1:{free_port()}'\n"
        "CVMFS_TIMEOUT=2\nCVMFS_MAX_RETRIES=0\n"
    )
    started = time.monotonic()
    engine.start("cvmfs")
    assert info(engine)["Degraded"] == "no"  # nobody has asked for a repository
    assert engine.run(scene.normal, "echo", "runs") == b"runs\n"
    assert time.monotonic() - started < 40
    with pytest.raises(DaemonError, match="images.example.org"):
        engine.run(scene.thin, "true")
    assert time.monotonic() - started < 90
    config.write_text(before)
    assert engine.run(scene.thin, "echo", "again") == b"again\n"  # nothing need be started anew


def test_settings_are_changed_without_losing_images(engine: DockerEngine, scene: Scene) -> None:
    """As for an upgrade: Docker runs on overlay2 meanwhile, and containers are stopped."""
    images = sorted(engine.docker("images", "--quiet").split())
    engine.stop()
    engine.start("overlay2")
    engine.docker("plugin", "disable", "--force", "cvmfs")
    engine.docker("plugin", "set", "cvmfs", "LOG_LEVEL=warning", "CACHE_QUOTA_MB=1600")
    with pytest.raises(DaemonError, match="not found in the plugin configuration"):
        engine.docker("plugin", "set", "cvmfs", "NONSENSE=1")
    engine.docker("plugin", "enable", "cvmfs")
    engine.stop()
    engine.start("cvmfs")
    assert sorted(engine.docker("images", "--quiet").split()) == images
    assert info(engine)["Cache"].endswith("1600 MiB")
    assert engine.run(scene.thin, "echo", "runs") == b"runs\n"


def test_the_plugin_is_upgraded_without_losing_images(
    engine: DockerEngine, scene: Scene, etc: Path, tmp_path: Path
) -> None:
    """The new version comes from a registry, and finds the layers of the old one; Docker forgets settings."""
    images = sorted(engine.docker("images", "--quiet").split())
    newer = f"{scene.stage.registry}/cvmfs:next"
    subprocess.run(["tar", "--extract", "--file", plugin_tarball(PROJECT), "-C", tmp_path], check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "description": "the next version"}))
    (tmp_path / "rootfs/etc/next").touch()  # Docker takes no plugin whose root it has already
    engine.docker("plugin", "create", newer, str(tmp_path))
    engine.docker("plugin", "push", newer)
    engine.docker("plugin", "rm", newer)
    engine.docker("create", "--name", "kept", "--network", "none", scene.thin, "sh", "-c", "cat /own")
    engine.docker("cp", str(tmp_path / "config.json"), "kept:/own")

    engine.stop()
    engine.start("overlay2")
    engine.docker("plugin", "disable", "--force", "cvmfs")
    engine.docker("plugin", "upgrade", "--skip-remote-check", "--grant-all-permissions", "cvmfs", newer)
    engine.enable_plugin(etc, settings=("CACHE_QUOTA_MB=1700",))
    engine.stop()
    engine.start("cvmfs")

    (plugin,) = json.loads(engine.docker("plugin", "inspect", "cvmfs"))
    assert plugin["Config"]["Description"] == "the next version"
    assert info(engine)["Cache"].endswith("1700 MiB")
    assert sorted(engine.docker("images", "--quiet").split()) == images
    assert "the next version" in engine.docker("start", "--attach", "kept")
    assert engine.run(scene.normal, "echo", "runs") == b"runs\n"


def test_containers_live_on_without_docker(engine: DockerEngine, scene: Scene) -> None:
    """With ``--live-restore``, dockerd may end or die: containers go on, and read what nobody has fetched."""
    engine.stop()
    engine.start("cvmfs", "--live-restore")
    script = "until [ -e /go ]; do sleep 0.1; done; sha256sum /usr/bin/*; exec sleep 600"
    name = engine.docker("run", "--detach", "--network", "none", scene.thin, "sh", "-c", script)
    state = engine.docker("inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", name)
    for _ in range(2):
        engine.kill_daemon()
        assert engine.docker("inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", name) == state
    engine.docker("exec", name, "touch", "/go")
    expected = engine.run(scene.normal, "sh", "-c", "sha256sum /usr/bin/*").decode().splitlines()
    wait_until(lambda: engine.docker("logs", name).splitlines() == expected, 30)
    assert engine.docker("diff", name).splitlines() == ["A /go"]
    assert engine.run(scene.thin, "echo", "runs") == b"runs\n"
    engine.docker("rm", "--force", name)
    assert not [mount for mount in mounts_below(engine.directory) if mount.filesystem == b"overlay"]
