"""The life of layers through Docker's API: what stock overlay2 does, ours does.

Images are built from archives of a few files with a static shell, so a test costs little. Every expectation
is checked on both drivers; none is taken from ours.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.daemons import DaemonError, DockerEngine
from tests.support.tars import Content, tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

APPLETS = (
    "sh",
    "ls",
    "cat",
    "rm",
    "mv",
    "ln",
    "mkdir",
    "touch",
    "stat",
    "chmod",
    "chown",
    "find",
    "test",
    "mknod",
    "sort",
    "dd",
    "grep",
)


@pytest.fixture(scope="session")
def base(engine: DockerEngine) -> str:
    """An image with a shell and a few files."""
    shell = shutil.which("busybox")
    if shell is None:
        pytest.fail("busybox-static is missing: run scripts/install-packages")
    members: list[tuple[str, Content]] = [("bin", None), ("bin/busybox", Path(shell).read_bytes())]
    members += [(f"bin/{name}", "busybox") for name in APPLETS]
    members += [
        ("d", None),
        ("d/one", b"1\n"),
        ("d/two", b"2\n"),
        ("d/sub", None),
        ("d/sub/deep", b"deep\n"),
        ("f", b"file\n"),
    ]
    engine.docker("import", "-", "base:1", stdin=tar_of(*members))
    return "base:1"


class Container:
    """A container that runs scripts one after the other."""

    def __init__(self, engine: DockerEngine, image: str) -> None:
        self._engine = engine
        self.name = engine.docker(
            "run", "--detach", "--network", "none", image, "sh", "-c", "while :; do read x < /dev/zero; done"
        )

    def do(self, script: str) -> str:
        return self._engine.docker("exec", self.name, "sh", "-ec", script)

    def commit(self, image: str) -> str:
        self._engine.docker("commit", self.name, image)
        return image

    def end(self) -> None:
        self._engine.docker("rm", "--force", self.name)


@pytest.fixture
def container(engine: DockerEngine, base: str) -> Iterator[Container]:
    box = Container(engine, base)
    yield box
    box.end()


def run(engine: DockerEngine, image: str, script: str) -> str:
    return engine.run(image, "sh", "-ec", script).decode()


def test_changes_by_kind(engine: DockerEngine, container: Container) -> None:
    container.do("echo 3 > /d/three; rm /d/one; chmod 600 /d/two; mkdir /new; rm -r /d/sub; touch /new/x")
    assert set(engine.docker("diff", container.name).splitlines()) == {
        "C /d", "A /d/three", "D /d/one", "C /d/two", "D /d/sub", "A /new", "A /new/x",
    }  # fmt: skip


def test_a_committed_layer_says_the_same(engine: DockerEngine, container: Container) -> None:
    container.do(
        "echo 3 > /d/three; rm /d/one; mv /f /g; ln /g /h; ln -s /g /i; chmod 4711 /g; chown 12:34 /d/two"
    )
    image = container.commit("committed:1")
    seen = run(engine, image, "ls /d; cat /g /h /i; stat -c '%a %u %g %h' /g /d/two")
    assert seen == "sub\nthree\ntwo\nfile\nfile\nfile\n4711 0 0 2\n755 12 34 1\n"


def test_a_replaced_directory_is_opaque(engine: DockerEngine, container: Container) -> None:
    container.do("rm -r /d; mkdir /d; echo only > /d/only")
    image = container.commit("opaque:1")
    assert run(engine, image, "find /d | sort") == "/d\n/d/only\n"
    again = Container(engine, image)
    try:
        again.do("rm /d/only; touch /d/other")
        assert run(engine, again.commit("opaque:2"), "find /d | sort") == "/d\n/d/other\n"
    finally:
        again.end()


def test_directories_are_renamed(engine: DockerEngine, container: Container) -> None:
    container.do("mv /d /e; echo 4 > /e/sub/four")
    image = container.commit("renamed:1")
    assert run(engine, image, "find /e | sort; test ! -e /d; cat /e/sub/deep /e/sub/four") == (
        "/e\n/e/one\n/e/sub\n/e/sub/deep\n/e/sub/four\n/e/two\ndeep\n4\n"
    )


def test_a_file_becomes_a_directory_and_back(engine: DockerEngine, container: Container) -> None:
    container.do("rm /f; mkdir /f; touch /f/inside; rm -r /d; echo now a file > /d")
    image = container.commit("kinds:1")
    assert run(engine, image, "find /f /d | sort; cat /d") == "/d\n/f\n/f/inside\nnow a file\n"


def test_a_chain_as_deep_as_docker_allows(engine: DockerEngine, base: str) -> None:
    """125 layers, each with a file of its own and another version of one that all have."""
    saved = engine.docker_bytes("save", base)
    layers = [tar_of((f"layer{number}", b"%d" % number), ("top", b"%d" % number)) for number in range(124)]
    engine.docker("load", stdin=_with_layers(saved, layers, "tower:1"))
    assert len(json.loads(engine.docker("inspect", "tower:1"))[0]["RootFS"]["Layers"]) == 125
    assert (
        run(engine, "tower:1", "cat /top /layer0 /layer123 /f; ls / | grep -c layer") == "1230123file\n124\n"
    )
    engine.docker("rmi", "tower:1")


def _with_layers(saved: bytes, layers: list[bytes], name: str) -> bytes:
    """An archive of ``docker save`` with more layers on top, under another name."""
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        bottom = tar.extractfile(manifest["Layers"][0]).read()  # type: ignore[union-attr]
    config["rootfs"]["diff_ids"] += [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config["history"] += [{"created_by": "a layer"} for _ in layers]
    names = [f"{number}.tar" for number in range(len(layers) + 1)]
    document = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    members: list[tuple[str, Content]] = [
        ("config.json", json.dumps(config).encode()),
        ("manifest.json", json.dumps(document).encode()),
        *zip(names, [bottom, *layers], strict=True),
    ]
    return tar_of(*members)


def test_save_and_load_keep_every_layer(engine: DockerEngine, container: Container) -> None:
    container.do("rm /d/one; echo changed > /f")
    image = container.commit("saved:1")
    digests = json.loads(engine.docker("inspect", image))[0]["RootFS"]["Layers"]
    saved = engine.docker_bytes("save", image)
    engine.docker("rmi", image)
    engine.docker("load", stdin=saved)
    assert json.loads(engine.docker("inspect", image))[0]["RootFS"]["Layers"] == digests
    assert run(engine, image, "cat /f; ls /d") == "changed\nsub\ntwo\n"


def test_sizes_are_those_of_the_files(engine: DockerEngine, container: Container) -> None:
    container.do("dd if=/dev/zero of=/big bs=1024 count=3000 2>/dev/null; ln /big /linked")
    size = json.loads(engine.docker("inspect", "--size", container.name))[0]["SizeRw"]
    assert 3_000 * 1024 <= size < 3_000 * 1024 + 100_000


def test_what_is_in_use_is_not_removed(engine: DockerEngine, container: Container) -> None:
    with pytest.raises(DaemonError, match="conflict"):
        engine.docker("rmi", "base:1")
    assert container.do("cat /f") == "file"


def test_many_containers_at_once(engine: DockerEngine, base: str) -> None:
    """Each has its own layer, and all have the same below; nothing is left when they are gone."""
    script = "echo $0 >> /f; rm /d/one; ls /d; cat /f"
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda n: engine.run(base, "sh", "-ec", script, str(n)), range(16)))
    assert said == [b"sub\ntwo\nfile\n%d\n" % number for number in range(16)]
    assert run(engine, base, "cat /f /d/one") == "file\n1\n"


def test_a_size_needs_a_file_system_with_project_quotas(engine: DockerEngine, base: str) -> None:
    with pytest.raises(DaemonError, match="(?i)storage-opt|quota"):
        engine.run(base, "true", options=("--storage-opt", "size=100M"))
    with pytest.raises(DaemonError, match="(?i)unknown option|colour is not supported"):
        engine.run(base, "true", options=("--storage-opt", "colour=red"))
