"""What is in the image of the snapshotter, and that it uses nothing of the node on which it is put.

``make test-matrix`` builds it, and the root directory of another release.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import IMPORT_EVERYTHING, PROJECT
from tests.support.snapshotter_image import (
    ARCHIVE,
    NODE,
    image_blob,
    image_manifest,
    need_snapshotter_image,
    read_archive,
    unpack_snapshotter_image,
)

_SOURCES = ("pyproject.toml", "packaging", "scripts", "src")

_EVERYTHING = (
    IMPORT_EVERYTHING
    + """
import socket
import grpc, google.protobuf, tomlkit
socket.getaddrinfo("127.0.0.1", 80)
with open("/proc/self/maps") as maps:
    code = {line.split()[5] for line in maps if "x" in line.split()[1] and len(line.split()) > 5}
print(*(path for path in code if path.startswith("/") and not path.startswith("/opt/cvmfs-snapshotter/")))
"""
)


@pytest.fixture(scope="module")
def archive() -> dict[str, bytes]:
    """The archive's files."""
    need_snapshotter_image()
    return read_archive(ARCHIVE)


@pytest.fixture(scope="module")
def layer(archive: dict[str, bytes]) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=io.BytesIO(gzip.decompress(image_blob(archive, image_manifest(archive)["layers"][0])))
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_snapshotter_image()
    place = tmp_path_factory.mktemp("image")
    unpack_snapshotter_image(ARCHIVE, place)
    return place


def _tree(root: Path) -> Path:
    (found,) = (root / "opt/cvmfs-snapshotter").iterdir()
    return found


def _python(root: Path, program: str) -> str:
    interpreter = "/" / _tree(root).relative_to(root) / "usr/bin/python3.11"
    mounts = 'mkdir -p "$1/proc"; mount --rbind /proc "$1/proc"; exec chroot "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-euc", mounts, "sh", root, interpreter, "-I", "-B", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    ).stdout


def test_the_archive_is_an_image(archive: dict[str, bytes], layer: tarfile.TarFile) -> None:
    manifest = image_manifest(archive)
    config = json.loads(image_blob(archive, manifest["config"]))
    stream = gzip.decompress(image_blob(archive, manifest["layers"][0]))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(stream).hexdigest()}"]
    (program,) = config["config"]["Entrypoint"]
    target = layer.getmember(f".{program}").linkname
    assert layer.getmember(f".{target}").mode == 0o755


@pytest.mark.root
def test_it_runs_in_an_empty_root(unpacked: Path) -> None:
    assert _python(unpacked, _EVERYTHING) == "\n"


@pytest.mark.root
def test_it_uses_nothing_of_a_node(unpacked: Path, tmp_path: Path) -> None:
    own, work, root = (tmp_path / name for name in ("own", "work", "root"))
    for place in (own, work, root):
        place.mkdir()
    subprocess.run(["cp", "-a", unpacked / "opt", own], check=True)
    options = f"lowerdir={NODE},upperdir={own},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
    try:
        assert _python(root, _EVERYTHING) == "\n"
    finally:
        subprocess.run(["umount", root], check=True)


def test_only_the_interpreter_can_be_executed(unpacked: Path) -> None:
    files = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]
    tree = _tree(unpacked)
    assert {str(path.relative_to(tree)) for path in files if path.stat().st_mode & 0o111} == {
        "bin/cvmfs-graphdriver",
        "usr/bin/python3.11",
        "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    }
    assert not [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]


def test_the_bill_of_materials_has_what_both_locks_have(unpacked: Path) -> None:
    locked = {
        str(canonicalize_name(line.partition("==")[0]))
        for name in ("plugin.lock", "snapshotter.lock")
        for line in (PROJECT / "packaging" / name).read_text().splitlines()
        if "==" in line
    }
    bom = json.loads((_tree(unpacked) / "usr/share/doc/cvmfs-graphdriver/bom.cdx.json").read_text())
    assert bom["metadata"]["component"]["name"] == "cvmfs-snapshotter-image"
    kinds = [(str(each["purl"]), str(each["name"])) for each in bom["components"]]
    assert {str(canonicalize_name(name)) for purl, name in kinds if purl.startswith("pkg:pypi/")} == locked
    assert "libstdc++6" in {name for purl, name in kinds if purl.startswith("pkg:deb/")}


def test_the_lock_has_what_only_the_snapshotter_requires() -> None:
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    required = {each.name: each for each in map(Requirement, document["project"]["dependencies"])}
    text = (PROJECT / "packaging/snapshotter.lock").read_text()
    pins = dict(line.split()[0].split("==") for line in text.splitlines() if "==" in line)
    for name in document["tool"]["cvmfs-graphdriver"]["only-in-the-snapshotter"]:
        assert required[name].specifier.contains(pins[name]), f"run 'make lock': {name}"


@pytest.mark.root
def test_two_builds_give_the_same_bytes(
    archive: dict[str, bytes], layer: tarfile.TarFile, tmp_path: Path
) -> None:
    for name in _SOURCES:
        subprocess.run(["cp", "-r", PROJECT / name, tmp_path], check=True)
    (tmp_path / ".venv").symlink_to(PROJECT / ".venv")
    (tmp_path / "build").mkdir()
    for name in ("plugin-packages", "rootfs-base", "rootfs-base.stamp", "snapshotter-packages"):
        subprocess.run(["cp", "-a", PROJECT / "build" / name, tmp_path / "build"], check=True)
    subprocess.run(["cp", "-a", PROJECT / "build/snapshotter-packages.stamp", tmp_path / "build"], check=True)
    epoch = int(layer.getmember(".").mtime)
    subprocess.run(
        [tmp_path / "scripts/build-snapshotter-image"],
        check=True,
        umask=0o077,
        env={"PATH": os.environ["PATH"], "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": str(epoch)},
        stderr=subprocess.DEVNULL,
    )
    assert (tmp_path / "build" / ARCHIVE.name).read_bytes() == ARCHIVE.read_bytes()
