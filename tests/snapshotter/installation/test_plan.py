"""Installing into a host's root directory, and taking it back: other settings stay, to the byte."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation.change import BACKUP
from cvmfs_graphdriver.snapshotter.installation.containerd import PluginSetting, parse_version
from cvmfs_graphdriver.snapshotter.installation.plan import Host, HostEngine, plan_installation, plan_removal

SETTING = PluginSetting(
    "cvmfs-snapshotter", "/run/cvmfs-snapshotter/snapshotter.sock", "/var/lib/cvmfs-snapshotter"
)
MAIN = b"""\
# Ours, with care.
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.example.org/pause:3"   # mirrored
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"""
DAEMON = b'{"log-driver": "journald", "features": {"buildkit": true}, "storage-driver": "overlay2"}'
TEMPLATE = b'{{ template "base" . }}\n\n[plugins.mine]\n  key = 1'
PROGRAM = "/opt/bin/cvmfs-graphdriver"


def install(host: Host, engine: HostEngine, setting: PluginSetting = SETTING) -> None:
    for change in plan_installation(engine, host, setting, PROGRAM):
        if change.needed:
            change.install()


def remove(host: Host, engine: HostEngine) -> None:
    for change in plan_removal(engine, host, SETTING.name):
        change.take_back()


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("engine", list(HostEngine))
@pytest.mark.parametrize("containerd", [1, 2])
@pytest.mark.parametrize("there", [False, True])
def test_there_and_back(tmp_path: Path, engine: HostEngine, containerd: int, *, there: bool) -> None:
    host = Host(tmp_path, containerd)
    if there:
        template = "config.toml.tmpl" if containerd == 1 else "config-v3.toml.tmpl"
        for path, content in {
            "etc/containerd/config.toml": MAIN,
            "etc/docker/daemon.json": DAEMON,
            f"var/lib/rancher/k3s/agent/etc/containerd/{template}": TEMPLATE,
        }.items():
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_bytes(content)
    before = files(tmp_path)
    install(host, engine)
    after = files(tmp_path)
    assert b"cvmfs-snapshotter" in b"".join(after.values())
    assert not [change for change in plan_installation(engine, host, SETTING, PROGRAM) if change.needed]
    remove(host, engine)
    kept = files(tmp_path)
    if there and engine is HostEngine.K3S:  # the newline that a part needs before it stays
        kept = {path: content.rstrip(b"\n") for path, content in kept.items()}
        before = {path: content.rstrip(b"\n") for path, content in before.items()}
    assert kept == before


def test_what_was_changed_since_is_kept(tmp_path: Path) -> None:
    host = Host(tmp_path, 2)
    (tmp_path / "etc/docker").mkdir(parents=True)
    place = tmp_path / "etc/docker/daemon.json"
    place.write_bytes(DAEMON)
    install(host, HostEngine.DOCKER)
    settings = json.loads(place.read_bytes())
    assert settings == {
        "log-driver": "journald",
        "features": {"buildkit": True, "containerd-snapshotter": True},
        "storage-driver": "cvmfs-snapshotter",
        "containerd": "/run/containerd/containerd.sock",
    }
    assert Path(f"{place}{BACKUP}").read_bytes() == DAEMON
    place.write_text(json.dumps(settings | {"debug": True}))
    remove(host, HostEngine.DOCKER)
    assert json.loads(place.read_bytes()) == json.loads(DAEMON) | {"debug": True}


def test_comments_and_other_plugins_stay(tmp_path: Path) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    main = tmp_path / "etc/containerd/config.toml"
    main.write_bytes(MAIN)
    install(Host(tmp_path, 1), HostEngine.CONTAINERD)
    text = main.read_text()
    assert "# Ours, with care." in text
    assert "# mirrored" in text
    cri = tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["cni"] == {"bin_dir": "/usr/lib/cni"}
    assert cri["containerd"] == {"snapshotter": "cvmfs-snapshotter", "disable_snapshot_annotations": False}


def test_only_a_runtime_class(tmp_path: Path) -> None:
    setting = PluginSetting(SETTING.name, SETTING.socket, SETTING.state, runtime_class="lazy")
    install(Host(tmp_path, 2), HostEngine.CONTAINERD, setting)
    plugins = tomllib.loads((tmp_path / "etc/containerd/conf.d/cvmfs-snapshotter.toml").read_text())[
        "plugins"
    ]
    images = plugins["io.containerd.cri.v1.images"]
    assert images["runtime_platforms"]["lazy"]["snapshotter"] == "cvmfs-snapshotter"
    assert "snapshotter" not in images
    runtime = plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["lazy"]
    assert runtime == {"runtime_type": "io.containerd.runc.v2", "snapshotter": "cvmfs-snapshotter"}
    unpack = plugins["io.containerd.transfer.v1.local"]["unpack_config"]
    assert [entry["snapshotter"] for entry in unpack] == ["overlayfs", "cvmfs-snapshotter"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("etc/docker/daemon.json", b"{"),
        ("etc/docker/daemon.json", b"[]"),
        ("etc/docker/daemon.json", b'{"features": 1}'),
        ("etc/containerd/config.toml", b"version = "),
        ("etc/containerd/config.toml", b"root = '/x'"),  # the form of version 1
        ("etc/containerd/config.toml", b"version = 2\nimports = 1"),
        ("etc/containerd/config.toml", b"version = 2\nplugins = 1"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(tmp_path: Path, path: str, content: bytes) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(content)
    engine = HostEngine.DOCKER if "docker" in path else HostEngine.CONTAINERD
    with pytest.raises(InstallationError):
        install(Host(tmp_path, 1), engine)
    assert files(tmp_path) == {path: content}


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", 1),
        ("containerd github.com/containerd/containerd/v2 2.1.4 75cb2b7193e4", 2),
        ("ctr github.com/k3s-io/containerd v2.0.5-k3s1", 2),
    ],
)
def test_versions(text: str, major: int) -> None:
    assert parse_version(text) == major


def test_a_version_that_is_not_one() -> None:
    with pytest.raises(InstallationError, match="cannot tell"):
        parse_version("containerd")


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match="no containerd found"):
        plan_installation(HostEngine.CONTAINERD, Host(tmp_path), SETTING, PROGRAM)


def test_containerd_reads_it(tmp_path: Path) -> None:
    program = shutil.which("containerd")
    assert program is not None
    (tmp_path / "etc/containerd").mkdir(parents=True)
    main = tmp_path / "etc/containerd/config.toml"
    main.write_bytes(MAIN)
    major = parse_version(
        subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout
    )
    install(Host(tmp_path, major), HostEngine.CONTAINERD)
    main.write_text(main.read_text().replace("/etc/containerd/conf.d", f"{tmp_path}/etc/containerd/conf.d"))
    dump = subprocess.run([program, "-c", main, "config", "dump"], capture_output=True, check=True).stdout
    read = tomllib.loads(dump.decode())
    assert read["proxy_plugins"]["cvmfs-snapshotter"]["address"] == SETTING.socket
    cri = read["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["containerd"]["snapshotter"] == "cvmfs-snapshotter"
    assert cri["containerd"]["disable_snapshot_annotations"] is False
    assert cri["sandbox_image"] == "registry.example.org/pause:3"
    assert cri["cni"]["bin_dir"] == "/usr/lib/cni"
