"""Docker's commands on thin images, as on any others."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.daemons import DockerEngine
from tests.end_to_end.conftest import Scene

pytestmark = [pytest.mark.root, pytest.mark.docker]


@pytest.fixture
def thin(scene: Scene, ours: DockerEngine) -> str:
    ours.docker("pull", "--quiet", scene.thin)
    return scene.thin


@pytest.fixture
def container(ours: DockerEngine, thin: str) -> Iterator[str]:
    """A container that has changed what it got."""
    script = (
        "echo changed > /etc/motd; rm /app/main.py; mkdir /made; echo new > /made/file; chmod 600 /etc/passwd"
    )
    name = ours.docker("create", "--network", "none", thin, "sh", "-c", script)
    ours.docker("start", "--attach", name)
    yield name
    ours.docker("rm", "--force", name)


def member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_diff(ours: DockerEngine, container: str) -> None:
    lines = set(ours.docker("diff", container).splitlines())
    assert lines == {
        "C /etc",
        "C /etc/motd",
        "C /etc/passwd",
        "C /app",
        "D /app/main.py",
        "A /made",
        "A /made/file",
    }


def test_copying_in_and_out(ours: DockerEngine, container: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("copied in")
    ours.docker("cp", str(tmp_path / "in"), f"{container}:/made/in")
    assert member(ours.docker_bytes("cp", f"{container}:/made/in", "-"), "in") == b"copied in"
    assert member(ours.docker_bytes("cp", f"{container}:/etc/motd", "-"), "motd") == b"changed\n"
    deep = ours.docker_bytes("cp", f"{container}:/usr/lib/os-release", "-")
    assert b"bookworm" in member(deep, "os-release")


def test_export_is_the_whole_tree(ours: DockerEngine, container: str) -> None:
    archive = ours.docker_bytes("export", container)
    assert member(archive, "etc/motd") == b"changed\n"
    assert b"bookworm" in member(archive, "usr/lib/os-release")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = tar.getnames()
    assert "app/main.py" not in names
    assert "etc/debian_version" not in names
    assert len(names) > 10_000


def test_commit_run_push_and_pull(scene: Scene, ours: DockerEngine, container: str) -> None:
    """Only the small layer of what changed travels."""
    name = f"{scene.stage.registry}/committed:1"
    ours.docker("commit", container, name)
    script = "cat /etc/motd /made/file; ls /app; stat -c %a /etc/passwd"
    expected = b"changed\nnew\n600\n"
    assert ours.run(name, "sh", "-c", script) == expected
    assert "layer 4" in ours.docker("history", name)  # the source image's history is kept
    ours.docker("push", "--quiet", name)
    stored = sum(
        path.stat().st_size for path in (scene.stage.scratch / "registry").rglob("data") if path.is_file()
    )
    ours.docker("rmi", name)
    ours.docker("pull", "--quiet", name)
    assert ours.run(name, "sh", "-c", script) == expected
    again = sum(
        path.stat().st_size for path in (scene.stage.scratch / "registry").rglob("data") if path.is_file()
    )
    assert again == stored
    layers = json.loads(ours.docker("inspect", name))[0]["RootFS"]["Layers"]
    assert len(layers) == 2
    ours.docker("rmi", name)


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_build_from_thin(
    scene: Scene,
    ours: DockerEngine,
    thin: str,
    tmp_path: Path,
    buildkit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", buildkit)
    with tarfile.open(tmp_path / "added.tar", "w") as tar:
        info = tarfile.TarInfo("inside/file")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"added\n"))
    (tmp_path / "copied").write_text("copied\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {thin} AS first\n"
        "RUN rm -r /odd && echo run > /etc/motd && ln /etc/motd /linked\n"
        "COPY copied /copied\n"
        "ADD added.tar /added\n"
        f"FROM {thin}\n"
        "COPY --from=first /etc/motd /from-first\n"
        "COPY --from=first /added /added\n"
        "RUN test -d /odd && echo second > /second\n"
    )
    name = f"built:{buildkit}"
    ours.docker("build", "--quiet", "--network", "none", "--tag", name, str(tmp_path))
    assert ours.run(name, "cat", "/from-first", "/added/inside/file", "/second") == b"run\nadded\nsecond\n"
    assert ours.run(name) == ours.run(scene.thin)
    ours.docker("rmi", name)


def test_save_and_load(ours: DockerEngine, thin: str) -> None:
    archive = ours.docker_bytes("save", thin)
    assert len(archive) < 100_000
    ours.docker("rmi", thin)
    ours.docker("load", stdin=archive)
    assert b"mpmath" in ours.run(thin)


def test_what_docker_says_of_it(ours: DockerEngine, thin: str) -> None:
    config = json.loads(ours.docker("inspect", thin))[0]["Config"]
    assert config["Labels"] == {"org.example.demo": "kept"}
    assert "DEMO=kept" in config["Env"]
    assert config["WorkingDir"] == "/app"
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert "Data Plane: fuse" in ours.docker("info")
    assert thin.rpartition(":")[0] in ours.docker("system", "df", "--verbose")


def test_prune_leaves_nothing_behind(ours: DockerEngine, thin: str) -> None:
    ours.run(thin, "true")
    ours.docker("system", "prune", "--all", "--force")
    (home,) = (path for path in ours.plugin_home().iterdir() if path.is_dir())
    assert {path.name for path in home.iterdir()} <= {"cvmfs", "cache"}
