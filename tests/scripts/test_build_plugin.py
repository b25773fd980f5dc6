"""What is in the plugin that ``make plugin`` built, where it comes from, and that it can be built again.

The packages are looked at as they lie in ``build/plugin``; its own Python, in a chroot, says what works.
"""

import hashlib
import json
import os
import re
import stat
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from demo.daemons import plugin_tarball
from tests.support.project import IMPORT_EVERYTHING, PROJECT

_ROOT = PROJECT / "build/plugin/rootfs"
_SITE = "usr/lib/python3/dist-packages"
_PROGRAMS = {"usr/bin/python3.11", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"}
"""The interpreter, and the program with which the kernel loads it."""

_DEBIAN = """
    base-files ca-certificates gcc-12-base libc6 libexpat1 libffi8 libgcc-s1 libpython3.11-minimal
    libpython3.11-stdlib libsqlite3-0 libssl3 python3.11-minimal zlib1g
"""
_PYTHON_3_11 = {"python_version": "3.11", "python_full_version": "3.11.2", "extra": ""}
_SOURCES = ("pyproject.toml", "packaging", "scripts", "src")
_UNCHECKED_HASH = 1  # PEP 552

_AUTHORITIES = """
import ssl
print(ssl.create_default_context().cert_store_stats()["x509_ca"])
"""


def lock() -> dict[str, tuple[str, set[str]]]:
    """Versions and hashes, by canonical name."""
    text = (PROJECT / "packaging/plugin.lock").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        pin, *hashes = line.split()
        name, version = pin.split("==")
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
        found[str(canonicalize_name(name))] = (version, {each.rpartition(":")[2] for each in hashes})
    return found


def entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in sorted(root.rglob("*")):
        yield str(path.relative_to(root)), path.lstat()


@pytest.fixture(scope="module")
def bom() -> dict[str, dict[str, Any]]:
    """The components of the bill of materials, by name."""
    shown = plugin_tarball(PROJECT).with_name(plugin_tarball(PROJECT).name.replace(".tar.gz", ".cdx.json"))
    shipped = _ROOT / "usr/share/doc/cvmfs-graphdriver/bom.cdx.json"
    assert shipped.read_bytes() == shown.read_bytes()
    document = json.loads(shown.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    return {each["name"]: each for each in document["components"]}


def in_the_plugin(program: str) -> str:
    return subprocess.run(
        ["/usr/sbin/chroot", _ROOT, "/usr/bin/python3.11", "-B", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={},
    ).stdout


def test_the_lock_has_what_pyproject_requires() -> None:
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    names = document["tool"]["cvmfs-graphdriver"]
    omitted = {*names["not-in-the-plugin"], *names["only-in-the-snapshotter"]}
    required = {each.name: each for each in map(Requirement, document["project"]["dependencies"])}
    assert omitted < required.keys()
    locked = lock()
    for name, requirement in required.items():
        assert (name in locked) == (name not in omitted)
        assert name in omitted or requirement.specifier.contains(locked[name][0]), f"run 'make lock': {name}"


def test_the_plugin_has_what_the_lock_has_and_nothing_else() -> None:
    installed = list(distributions(path=[str(_ROOT / _SITE)]))
    locked = lock()
    assert {str(canonicalize_name(each.name)): each.version for each in installed} == {
        name: version for name, (version, _) in locked.items()
    }
    for package in installed:
        for requirement in map(Requirement, package.requires or []):
            if requirement.marker is None or requirement.marker.evaluate(_PYTHON_3_11):
                assert requirement.specifier.contains(locked[str(canonicalize_name(requirement.name))][0])


def test_the_bill_of_materials_has_every_package(bom: dict[str, dict[str, Any]]) -> None:
    debian = {name for name, each in bom.items() if str(each["purl"]).startswith("pkg:deb/debian/")}
    assert debian == set(_DEBIAN.split())
    assert {path.name for path in (_ROOT / "usr/share/doc").iterdir()} == debian | {"cvmfs-graphdriver"}
    locked = lock()
    assert {str(canonicalize_name(name)) for name in bom if name not in debian} == locked.keys()
    for name in bom.keys() - debian:
        version, hashes = locked[str(canonicalize_name(name))]
        assert bom[name]["version"] == version
        assert bom[name]["hashes"][0]["content"] in hashes
    packages = PROJECT / "build/plugin-packages"
    for name in debian:
        (package,) = packages.glob(f"{name}_*.deb")
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        assert bom[name]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    # Libraries within wheels are not Debian's, so nobody else would tell that they are there.
    bundled = [str(each["name"]) for each in bom["pycurl"]["components"]]
    assert [name for name in bundled if name.startswith(("libcurl-", "libcrypto-"))]


def test_the_interpreter_is_the_only_program() -> None:
    files = {name: found for name, found in entries(_ROOT) if stat.S_ISREG(found.st_mode)}
    assert {name for name, found in files.items() if found.st_mode & 0o111} == _PROGRAMS
    assert not [name for name, found in files.items() if found.st_mode & (stat.S_ISUID | stat.S_ISGID)]
    places = {"bin", "sbin", "libexec"}
    assert {name for name in files if places & set(Path(name).parts[:-1])} == {"usr/bin/python3.11"}


@pytest.mark.root
def test_every_module_can_be_imported() -> None:
    assert in_the_plugin(IMPORT_EVERYTHING) == ""


@pytest.mark.root
def test_servers_can_be_verified() -> None:
    assert int(in_the_plugin(_AUTHORITIES)) > 100


def test_every_module_is_compiled_without_a_time() -> None:
    sources = [path for path in _ROOT.rglob("*.py") if "licenses" not in path.parts]
    assert len(sources) > 1000
    for path in sources:
        compiled = path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"
        with compiled.open("rb") as file:
            assert int.from_bytes(file.read(8)[4:], "little") == _UNCHECKED_HASH


def test_nothing_tells_where_it_was_built() -> None:
    assert (_ROOT / "etc/resolv.conf").read_bytes() == b""
    assert not (_ROOT / "etc/hostname").exists()
    told = [
        path
        for path in _ROOT.rglob("*")
        if path.is_file() and not path.is_symlink() and str(PROJECT).encode() in path.read_bytes()
    ]
    assert told == []
    assert len({found.st_mtime for _, found in entries(_ROOT)}) == 1


@pytest.mark.root
@pytest.mark.parametrize("packages", ["kept", "fetched"])
def test_two_builds_give_the_same_bytes(packages: str, tmp_path: Path) -> None:
    if packages == "fetched" and not os.environ.get("FETCH_PACKAGES"):
        pytest.skip("FETCH_PACKAGES is not set: 'make test-matrix' sets it")
    for name in _SOURCES:
        subprocess.run(["cp", "-r", PROJECT / name, tmp_path], check=True)
    (tmp_path / ".venv").symlink_to(PROJECT / ".venv")
    (tmp_path / "build").mkdir()
    if packages == "kept":
        for name in ("plugin-packages", "rootfs-base", "rootfs-base.stamp"):
            subprocess.run(["cp", "-a", PROJECT / "build" / name, tmp_path / "build"], check=True)
    first = plugin_tarball(PROJECT)
    with tarfile.open(first) as archive:
        epoch = archive.next().mtime  # type: ignore[union-attr]
    subprocess.run(
        [tmp_path / "scripts/build-plugin"],
        check=True,
        umask=0o077,
        env={"PATH": os.environ["PATH"], "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": str(epoch)},
        stderr=subprocess.DEVNULL,
    )
    second = tmp_path / "build" / first.name
    assert second.read_bytes() == first.read_bytes()
