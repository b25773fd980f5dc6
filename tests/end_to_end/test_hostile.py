"""Hostile thin images and layers through docker pull, load and run: refused, and nothing is left.

Holes of exbibytes are refused, too (tests/oci/layer/test_tar.py), but not tried here: dockerd itself reads
all their zeros, whatever the storage driver.
"""

import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.daemons import DaemonError, DockerEngine
from tests.end_to_end.conftest import Scene
from tests.support.images import TestLayer, push, skopeo, write_layout
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

DIGEST = "a" * 64
EVIL = "evil-was-here"


def thin(*layers: tuple[str, str], **members: object) -> bytes:
    listed = [{"digest": digest, "url": url} for digest, url in layers]
    return json.dumps({"version": "1.0", "origin": "", "layers": listed, **members}).encode()


def numbered(count: int) -> list[tuple[str, str]]:
    return [(f"{number:064x}", f"cvmfs://images.example.org/layers/{number:064x}") for number in range(count)]


THIN_IMAGES: dict[str, tuple[bytes, str]] = {
    "a path upwards": (thin((DIGEST, "cvmfs://images.example.org/layers/../../etc")), "contains . or"),
    "an absolute path": (thin((DIGEST, "/etc")), "the scheme '' is unknown"),
    "a file": (thin((DIGEST, "file:///etc")), "the scheme 'file' is unknown"),
    "another scheme": (thin((DIGEST, "https://example.org/layer")), "the scheme 'https' is unknown"),
    "no repository": (thin((DIGEST, "cvmfs:///layers/x")), "not a valid repository name"),
    "a repository upwards": (thin((DIGEST, "cvmfs://../layers/x")), "not a valid repository name"),
    "the repository itself": (thin((DIGEST, "cvmfs://images.example.org/")), "names no directory"),
    "ten thousand layers": (thin(*numbered(10_000)), "thin.json"),
    "too many layers": (thin(*numbered(501)), "501 layers"),
    "no layers": (thin(), "it has no layers"),
    "the same layer twice": (thin(*numbered(1), *numbered(1)), "same digest"),
    "the same place twice": (thin((DIGEST, numbered(1)[0][1]), *numbered(1)), "same location"),
    "no digest": (thin(("x", numbered(1)[0][1])), "x"),
    "half a document": (thin(*numbered(3))[:-20], "thin.json"),
    "something else": (b'["version", "1.0"]', "thin.json"),
    "nesting": (b'{"layers":' + b"[" * 100_000, "thin.json"),
    "a hundred megabytes": (thin(*numbered(1), comment=" " * (100 << 20)), "thin.json"),
    "the future": (thin(*numbered(1), min_version="2.0"), "install a newer one"),
}


def header(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755
    for key, value in values.items():
        setattr(info, key, value)
    return info


def cut(tar: bytes) -> bytes:
    return tar[: len(tar) // 2]


def claiming(name: str, size: int) -> bytes:
    """A member whose header claims another size than there is."""
    info = header(name, size=size)
    return info.tobuf(tarfile.PAX_FORMAT) + b"x" * 512 + bytes(1024)


LAYERS: dict[str, bytes] = {
    "a path upwards": tar_of({f"../../../../../../../var/tmp/{EVIL}": b"x"}),
    "a path upwards in the middle": tar_of({"d": None, f"d/../../{EVIL}": b"x"}),
    "a file through a link": tar_of(
        {
            "way": header("way", tarfile.SYMTYPE, linkname="/var/tmp"),
            f"way/{EVIL}": b"x",
        }
    ),
    "a link replaced on the way": tar_of(
        {
            "d": None,
            "x": header("d", tarfile.SYMTYPE, linkname="/var/tmp"),
            f"d/{EVIL}": b"x",
        }
    ),
    "a hard link upwards": tar_of({"x": header("x", tarfile.LNKTYPE, linkname="../../../../etc/passwd")}),
    "a hard link through a link": tar_of(
        {
            "way": header("way", tarfile.SYMTYPE, linkname="/etc"),
            "x": header("x", tarfile.LNKTYPE, linkname="way/passwd"),
        }
    ),
    "a whiteout upwards": tar_of({".wh...": b""}),
    "a size beyond all": claiming("big", 1 << 60),
    "half an archive": cut(tar_of({f"f{number}": bytes(10_000) for number in range(20)})),
    "a device that cannot be": tar_of(
        {"x": header("x", tarfile.BLKTYPE, devmajor=0o777777, devminor=0o777777)}
    ),
}
ALLOWED = {"a whiteout upwards"}
"""A name that means nothing: overlay2 takes it for nothing, too."""
LOADED = ("a path upwards", "a hard link upwards", "half an archive")

Answers = dict[tuple[str, str], str]
"""By layer and Docker's command."""


@dataclass(frozen=True, slots=True)
class Attack:
    engine: DockerEngine
    registry: str
    place: Path

    def image(self, layer: bytes, name: str = "hostile:1") -> str:
        """The name of an image of one layer, in the registry."""
        write_layout(self.place / "layout", [TestLayer(layer)])
        name = f"{self.registry}/{name}"
        push(self.place / "layout", name)
        return name

    def layers(self) -> set[str]:
        home = self.engine.driver_home()
        return {path.name for path in home.iterdir() if (path / "diff").exists() or path.name[:4] == ".new"}

    def written(self) -> list[Path]:
        return [*Path("/var/tmp").glob(EVIL), *Path("/tmp").glob(EVIL), *self.engine.directory.rglob(EVIL)]


@pytest.fixture
def attack(ours: DockerEngine, scene: Scene, tmp_path: Path) -> Iterator[Attack]:
    attack = Attack(ours, scene.stage.registry, tmp_path)
    before = attack.layers()
    yield attack
    assert attack.layers() == before
    assert attack.written() == []


def refused(engine: DockerEngine, *command: str) -> str:
    with pytest.raises(DaemonError) as caught:
        engine.docker(*command)
    return str(caught.value)


@pytest.mark.parametrize("what", THIN_IMAGES)
def test_thin_images(what: str, attack: Attack) -> None:
    document, reason = THIN_IMAGES[what]
    name = attack.image(tar_of({"thin.json": document}))
    assert reason in refused(attack.engine, "pull", name)
    assert not attack.engine.docker("images", "--quiet", name)


def test_a_repository_without_key(attack: Attack) -> None:
    name = attack.image(tar_of({"thin.json": thin((DIGEST, "cvmfs://unknown.example.org/layers/x"))}))
    attack.engine.docker("pull", "--quiet", name)
    said = refused(attack.engine, "run", "--rm", name, "true")
    assert "unknown.example.org: no server is configured" in said
    assert "CVMFS_SERVER_URL" in said
    attack.engine.docker("rmi", "--force", name)


def test_a_layer_that_is_not_there(attack: Attack) -> None:
    name = attack.image(tar_of({"thin.json": thin((DIGEST, "cvmfs://images.example.org/layers/nothing"))}))
    attack.engine.docker("pull", "--quiet", name)
    assert "no layer cvmfs://images.example.org/layers/nothing" in refused(
        attack.engine, "run", "--rm", name, "true"
    )
    attack.engine.docker("rmi", "--force", name)


@pytest.fixture(scope="module")
def answers(ours: DockerEngine, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What Docker says of each layer that it pulls or loads; empty where it takes it.

    All at once: when a stream breaks off, Docker calls its storage driver again after 1, 2, 4 and 8 seconds.
    """
    place = tmp_path_factory.mktemp("layers")
    before = Attack(ours, scene.stage.registry, place).layers()

    def ask(way: tuple[str, str]) -> str:
        what, command = way
        number = list(LAYERS).index(what)
        attack = Attack(ours, scene.stage.registry, place / f"{number}-{command}")
        if command == "pull":
            name = argument = attack.image(LAYERS[what], f"layer{number}:1")
        else:
            name = f"evil:{number}"
            write_layout(attack.place / "layout", [TestLayer(LAYERS[what])])
            argument = f"--input={attack.place}/image.tar"
            layout, archive = f"oci:{attack.place}/layout:latest", f"{attack.place}/image.tar"
            skopeo("copy", "--quiet", "--insecure-policy", layout, f"docker-archive:{archive}:{name}")
        try:
            ours.docker(command, argument)
        except DaemonError as error:
            assert not ours.docker("images", "--quiet", name)
            return str(error)
        ours.docker("rmi", "--force", name)
        return ""

    ways = [(what, "pull") for what in LAYERS] + [(what, "load") for what in LOADED]
    with ThreadPoolExecutor(len(ways)) as pool:
        found = dict(zip(ways, pool.map(ask, ways), strict=True))
    attack = Attack(ours, scene.stage.registry, place)
    assert attack.layers() == before
    assert attack.written() == []
    return found


@pytest.mark.parametrize("what", LAYERS)
def test_layers(what: str, answers: Answers) -> None:
    pulled = answers[what, "pull"]
    assert pulled == "" if what in ALLOWED else len(pulled.splitlines()[-1]) > 40


@pytest.mark.parametrize("what", LOADED)
def test_loaded_archives(what: str, answers: Answers) -> None:
    assert len(answers[what, "load"].splitlines()[-1]) > 40
