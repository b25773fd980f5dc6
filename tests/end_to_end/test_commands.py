"""Docker's commands: the same on overlay2, on our driver, and on thin images."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmfs_graphdriver.planes.choice import obstacle
from demo.daemons import DaemonError, DockerEngine
from demo.installation import HERE, Installation
from tests.end_to_end.conftest import Scene

pytestmark = [pytest.mark.root, pytest.mark.docker]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the matrix: a dockerd, and an image in one of its forms."""

    engine: DockerEngine
    image: str
    layers: int

    @property
    def thin(self) -> bool:
        return self.layers == 1


@pytest.fixture(scope="module", params=["stock-normal", "ours-normal", "ours-thin"])
def column(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Column]:
    driver, _, form = request.param.partition("-")
    engine: DockerEngine = request.getfixturevalue(driver)
    image, layers = (scene.thin, 1) if form == "thin" else (scene.normal, 4)
    engine.docker("pull", "--quiet", image)
    yield Column(engine, image, layers)
    engine.docker("system", "prune", "--all", "--force")


@pytest.fixture
def container(column: Column) -> Iterator[str]:
    """A container that has changed what it got."""
    script = (
        "echo changed > /etc/motd; rm /app/main.py; mkdir /made; echo new > /made/file; chmod 600 /etc/passwd"
    )
    name = column.engine.docker("create", "--network", "none", column.image, "sh", "-c", script)
    column.engine.docker("start", "--attach", name)
    yield name
    column.engine.docker("rm", "--force", name)


def member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def stored(scene: Scene) -> int:
    """Bytes that the registry has."""
    blobs = (scene.stage.scratch / "registry").rglob("data")
    return sum(path.stat().st_size for path in blobs if path.is_file())


def test_run(column: Column) -> None:
    """The image's own command, a user, a read-only root, memory for temporary files."""
    assert json.loads(column.engine.run(column.image))["day"] == "Tuesday"
    options = ("--read-only", "--user", "65534:65534", "--tmpfs", "/tmp:mode=1777", "--workdir", "/etc")
    script = "id -u; pwd; echo x > /tmp/x; cat /tmp/x; touch /etc/x 2>&1 | grep -c Read-only"
    assert column.engine.run(column.image, "sh", "-c", script, options=options) == b"65534\n/etc\nx\n1\n"


def test_diff(column: Column, container: str) -> None:
    lines = set(column.engine.docker("diff", container).splitlines())
    assert lines == {
        "C /etc",
        "C /etc/motd",
        "C /etc/passwd",
        "C /app",
        "D /app/main.py",
        "A /made",
        "A /made/file",
    }


def test_copying_in_and_out(column: Column, container: str, tmp_path: Path) -> None:
    engine = column.engine
    (tmp_path / "in").write_text("copied in")
    engine.docker("cp", str(tmp_path / "in"), f"{container}:/made/in")
    assert member(engine.docker_bytes("cp", f"{container}:/made/in", "-"), "in") == b"copied in"
    assert member(engine.docker_bytes("cp", f"{container}:/etc/motd", "-"), "motd") == b"changed\n"
    deep = engine.docker_bytes("cp", f"{container}:/usr/lib/os-release", "-")
    assert b"bookworm" in member(deep, "os-release")


def test_export_is_the_whole_tree(column: Column, container: str) -> None:
    archive = column.engine.docker_bytes("export", container)
    assert member(archive, "etc/motd") == b"changed\n"
    assert b"bookworm" in member(archive, "usr/lib/os-release")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = tar.getnames()
    assert "app/main.py" not in names
    assert "etc/debian_version" not in names
    assert len(names) > 10_000


def test_commit_run_push_and_pull(scene: Scene, column: Column, container: str) -> None:
    """Only the small layer of what changed travels."""
    engine = column.engine
    name = f"{scene.stage.registry}/committed:1"
    engine.docker("commit", container, name)
    script = "cat /etc/motd /made/file; ls /app; stat -c %a /etc/passwd"
    expected = b"changed\nnew\n600\n"
    assert engine.run(name, "sh", "-c", script) == expected
    assert "layer 4" in engine.docker("history", name)  # the source image's history is kept
    before = stored(scene)
    engine.docker("push", "--quiet", name)
    once = stored(scene)
    assert once - before < 100_000 if column.thin else once >= before
    engine.docker("rmi", name)
    engine.docker("pull", "--quiet", name)
    assert engine.run(name, "sh", "-c", script) == expected
    assert stored(scene) == once
    layers = json.loads(engine.docker("inspect", name))[0]["RootFS"]["Layers"]
    assert len(layers) == column.layers + 1
    engine.docker("rmi", name)


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_build(column: Column, tmp_path: Path, buildkit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = column.engine
    monkeypatch.setenv("DOCKER_BUILDKIT", buildkit)
    with tarfile.open(tmp_path / "added.tar", "w") as tar:
        info = tarfile.TarInfo("inside/file")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"added\n"))
    (tmp_path / "copied").write_text("copied\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {column.image} AS first\n"
        "RUN rm -r /odd && echo run > /etc/motd && ln /etc/motd /linked\n"
        "COPY copied /copied\n"
        "ADD added.tar /added\n"
        f"FROM {column.image}\n"
        "COPY --from=first /etc/motd /copied /from-first/\n"
        "COPY --from=first /added /added\n"
        "RUN test -d /odd && echo second > /second\n"
    )
    name = f"built:{buildkit}"
    engine.docker("build", "--quiet", "--network", "none", "--tag", name, str(tmp_path))
    files = ("/from-first/motd", "/from-first/copied", "/added/inside/file", "/second")
    assert engine.run(name, "cat", *files) == b"run\ncopied\nadded\nsecond\n"
    assert engine.run(name) == engine.run(column.image)
    engine.docker("rmi", name)


def test_save_and_load(column: Column) -> None:
    engine = column.engine
    identity = engine.docker("inspect", "--format", "{{.Id}}", column.image)
    if not column.thin:
        # Docker itself cannot give a layer with a sparse file back, which the third is. What it can: see
        # the conformance suite.
        with pytest.raises(DaemonError, match="could not verify layer data"):
            engine.docker_bytes("save", column.image)
        return
    archive = engine.docker_bytes("save", column.image)
    assert len(archive) < 100_000
    engine.docker("rmi", column.image)
    engine.docker("load", stdin=archive)
    assert engine.docker("inspect", "--format", "{{.Id}}", column.image) == identity
    assert b"mpmath" in engine.run(column.image)


def test_what_docker_says_of_it(column: Column) -> None:
    config = json.loads(column.engine.docker("inspect", column.image))[0]["Config"]
    assert config["Labels"] == {"org.example.demo": "kept"}
    assert "DEMO=kept" in config["Env"]
    assert config["WorkingDir"] == "/app"
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert column.image.rpartition(":")[0] in column.engine.docker("system", "df", "--verbose")


def test_what_docker_says_of_the_driver(ours: DockerEngine) -> None:
    plane = "fuse (erofs not possible: " if obstacle(Path("/var/tmp")) else "erofs (supported by Linux "
    assert f"Data Plane: {plane}" in ours.docker("info")


def test_prune_leaves_nothing_behind(column: Column, installation: Installation) -> None:
    """Docker 25 to 27 forget the layers of exported containers, with any driver (moby/moby#48516)."""
    column.engine.docker("system", "prune", "--all", "--force")
    assert column.engine.docker("images", "--quiet", "--all") == ""
    before = layers(column.engine)
    assert not before or installation != HERE
    column.engine.docker("pull", "--quiet", column.image)
    column.engine.run(column.image, "true")
    column.engine.docker("system", "prune", "--all", "--force")
    assert layers(column.engine) == before


def layers(engine: DockerEngine) -> set[str]:
    """The layers that a driver keeps, and whatever else lies in its home."""
    if "overlay2" in engine.docker("info"):
        home = engine.directory / "data/overlay2"
    else:
        home = engine.driver_home()
    return {path.name for path in home.iterdir()} - {"l", "cvmfs", "cache"}
