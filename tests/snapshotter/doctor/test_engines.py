"""What an installation writes is found good, and each mistake in it is found."""

import json
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.checkup import Finding, Level
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.doctor.engines import check_engines
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting
from cvmfs_graphdriver.snapshotter.installation.plan import Host, HostEngine, plan_installation

CONFIGURATION = SnapshotterConfiguration()
SETTING = PluginSetting(
    "cvmfs-snapshotter",
    str(CONFIGURATION.socket),
    str(CONFIGURATION.state),
    capabilities=("only-remap-ids",),
)
DROP_IN = "etc/containerd/conf.d/cvmfs-snapshotter.toml"
MAIN = "etc/containerd/config.toml"
DAEMON = "etc/docker/daemon.json"


@pytest.fixture(params=[1, 2])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A host on which the snapshotter has been installed for Docker."""
    for change in plan_installation(HostEngine.DOCKER, Host(tmp_path, request.param), SETTING, "/bin/x"):
        change.install()
    return tmp_path


def problems(root: Path, configuration: SnapshotterConfiguration = CONFIGURATION) -> list[Finding]:
    return [each for each in check_engines(configuration, root) if each.level is not Level.OK]


def change(root: Path, path: str, old: str, new: str) -> None:
    text = (root / path).read_text()
    assert old in text
    (root / path).write_text(text.replace(old, new))


def only_problem(root: Path) -> str:
    (found,) = problems(root)
    assert found.remedy
    return found.what


def test_an_installation_is_good(root: Path) -> None:
    assert problems(root) == []
    texts = [each.what for each in check_engines(CONFIGURATION, root)]
    assert texts == [
        f"containerd knows cvmfs-snapshotter at {CONFIGURATION.socket}",
        "Docker uses the snapshotter",
    ]


def test_no_engine(tmp_path: Path) -> None:
    assert "does not exist: no engine uses the snapshotter" in only_problem(tmp_path)


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (DROP_IN, 'type = "snapshot"', 'type = "content"', "containerd calls"),
        (MAIN, "imports =", "imported =", "has no proxy plugin"),
        (DROP_IN, "snapshotter.sock", "other.sock", "containerd calls '/run/cvmfs-snapshotter/other.sock'"),
        (DROP_IN, '"only-remap-ids"', '"only-remap-ids", "rebase"', "capability rebase"),
        (DROP_IN, "only-remap-ids", "remap-ids", "has the capability remap-ids, but remap_ids is false"),
        (DROP_IN, '"only-remap-ids"', "", "copies the whole image"),
        (DROP_IN, "[proxy_plugins", "[proxy_plugins.", "cannot be read"),
        (DAEMON, '"containerd":', '"other":', "a containerd of its own"),
        (DAEMON, "true", "false", "the feature containerd-snapshotter is not set"),
        (DAEMON, '"features"', '"userns-remap": "default", "features"', "userns-remap keeps Docker from"),
        (DAEMON, "{", "[", "cannot be read"),
    ],
)
def test_each_mistake_is_found(root: Path, path: str, old: str, new: str, message: str) -> None:
    change(root, path, old, new)
    assert message in only_problem(root)


def test_an_earlier_graph_driver_is_found(root: Path) -> None:
    earlier = root / "data/overlay2"
    (earlier / "l").mkdir(parents=True)
    settings = json.loads((root / DAEMON).read_bytes()) | {"data-root": "/data"}
    (root / DAEMON).write_text(json.dumps(settings))
    assert only_problem(root) == f"images and containers in {earlier} are not shown by Docker any more"
    change(root, DAEMON, "true", "false")
    assert f"above all since {earlier} is not empty" in only_problem(root)


def test_the_environment_of_docker(root: Path) -> None:
    unit = root / "etc/systemd/system/docker.service.d/more.conf"
    unit.parent.mkdir()
    unit.write_text('[Service]\n# Environment=DOCKER_DRIVER=zfs\nEnvironment="DOCKER_DRIVER=overlay2"\n')
    assert only_problem(root) == f"{unit} sets DOCKER_DRIVER=overlay2, which overrides storage-driver"


def test_the_transfer_service(tmp_path: Path) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / MAIN).write_text(
        f"""
        version = 3
        [proxy_plugins.cvmfs-snapshotter]
        type = "snapshot"
        address = "{CONFIGURATION.socket}"
        capabilities = ["only-remap-ids"]
        [plugins."io.containerd.cri.v1.images"]
        disable_snapshot_annotations = false
        max_concurrent_downloads = 3
        [plugins."io.containerd.cri.v1.images".registry.mirrors.x]
        """
    )
    unpacking, fall_back = (each.what for each in problems(tmp_path))
    assert "transfer service does not unpack with cvmfs-snapshotter" in unpacking
    assert fall_back.endswith("because of disable_snapshot_annotations = false, registry.mirrors")


@pytest.mark.parametrize("text", ["", "[]", '"x"', '{"features": 5, "storage-driver": "cvmfs-snapshotter"}'])
def test_odd_settings_of_docker(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / DAEMON).write_text(text)
    assert all(isinstance(each, Finding) for each in check_engines(CONFIGURATION, tmp_path))


@pytest.mark.parametrize(
    "text", ["proxy_plugins = 5", "[proxy_plugins]\ncvmfs-snapshotter = 5", "imports = 5", "plugins = []"]
)
def test_odd_settings_of_containerd(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / MAIN).write_text(f"version = 3\n{text}\n")
    assert any(each.level is Level.ERROR for each in check_engines(CONFIGURATION, tmp_path))
