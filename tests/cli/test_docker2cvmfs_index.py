"""``publish`` and ``index``: layers, and records of their chains, for images that nodes start unmodified."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.images import TestLayer, push, write_layout
from tests.support.registry import RegistryServer, run_registry
from tests.support.storage_site import FQRN, Site
from tests.support.tars import tar_of

_BASE = TestLayer(tar_of({"etc": None, "etc/a": b"one"}))
_TOP = TestLayer(tar_of({"etc/b": b"two" * 1000}), "zstd")
_CHAIN = "sha256:" + hashlib.sha256(f"{_BASE.diff_id} {_TOP.diff_id}".encode()).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    directory = tmp_path_factory.mktemp("registry")
    with run_registry(directory) as registry:
        write_layout(directory / "layout", [_BASE, _TOP])
        push(directory / "layout", f"{registry.host}/app:1")
        yield registry


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _run(site: Site, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("docker2cvmfs")
    places = ["--storage", str(site.storage), "--keys", str(site.keys)]
    return subprocess.run(
        [program, *arguments, *places],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "error", "DOCKER_CONFIG": "/nonexistent"},
    )


def _record(site: Site, chain: str) -> tuple[bytes, bytes]:
    tree = site.tree(f"/.chains/{chain[7:9]}/{chain[7:]}".encode())
    assert set(tree) == {b"", b"/layer", b"/diff"}
    return tree[b"/layer"][0].symlink, tree[b"/diff"][0].symlink


def _check_records(site: Site) -> None:
    for layer, chain in ((_BASE, _BASE.diff_id), (_TOP, _CHAIN)):
        target = f"../../../.layers/{layer.digest[7:9]}/{layer.digest[7:]}/layerfs"
        assert _record(site, chain) == (target.encode(), layer.diff_id.encode())


def _forget_records(site: Site) -> None:
    """As a converter of before the index left the repository."""
    with Transaction(site.open()) as transaction:
        transaction.remove(b"/.chains")
        transaction.publish()
    assert site.names(b"/.chains") == set()


def test_publish_stores_layers_and_records_and_pushes_nothing(server: RegistryServer, site: Site) -> None:
    image = f"{server.host}/app:1"
    done = _run(site, "publish", image, "-r", FQRN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{image}@sha256:")
    assert "2 new layers" in done.stderr
    assert "2 new chain records" in done.stderr
    assert "thin" not in done.stderr
    _check_records(site)
    layer = site.tree(f"/.layers/{_TOP.digest[7:9]}/{_TOP.digest[7:]}/layerfs".encode())
    assert layer[b"/etc/b"][1] == b"two" * 1000
    assert site.findings() == []
    before, requests = site.files(), server.log.count("PUT /v2/")
    again = _run(site, "publish", image, "-r", FQRN, "--json")
    account = json.loads(again.stdout)
    assert (account["new_layers"], account["chain_records"], "thin_image" in account) == (0, 0, False)
    assert site.files() == before
    assert server.log.count("PUT /v2/") == requests
    assert _run(site, "publish", "-r", FQRN).returncode == 2


def test_index_fetches_no_layer(server: RegistryServer, site: Site) -> None:
    image = f"{server.host}/app:1"
    assert _run(site, "publish", image, "-r", FQRN).returncode == 0
    _forget_records(site)
    layers = [f"GET /v2/app/blobs/{layer.digest} " for layer in (_BASE, _TOP)]
    fetched = [server.log.count(layer) for layer in layers]
    done = _run(site, "index", image, "-r", FQRN, "--json")
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert (account["chain_records"], account["layers"], account["missing_layers"]) == (2, 2, 0)
    assert [server.log.count(layer) for layer in layers] == fetched
    _check_records(site)
    before = site.files()
    assert _run(site, "index", image, "-r", FQRN).stdout == image + "\n"
    assert site.files() == before


def test_index_all_asks_no_registry(server: RegistryServer, site: Site) -> None:
    image = f"{server.host}/app:1"
    none = _run(site, "index", "--all", "-r", FQRN)
    assert none.returncode == 66
    assert "records no images" in none.stderr
    assert _run(site, "publish", image, "-r", FQRN).returncode == 0
    _forget_records(site)
    requests = server.log.count("GET ")
    done = _run(site, "index", "--all", "-r", FQRN)
    assert (done.returncode, done.stdout) == (0, f"{image}\n"), done.stderr
    assert server.log.count("GET ") == requests
    _check_records(site)


def test_index_all_says_which_image_it_cannot_read(server: RegistryServer, site: Site) -> None:
    image = f"{server.host}/app:1"
    assert _run(site, "publish", image, "-r", FQRN).returncode == 0
    with Transaction(site.open()) as transaction:
        home = f"/.layers/{_TOP.digest[7:9]}/{_TOP.digest[7:]}"
        transaction.write_file(f"{home}/.metadata/layers.json".encode(), b'[{"diff-digest": 1}]')
        transaction.write_file(b"/.metadata/other/manifest.json", b"{" * 100_000)
        transaction.publish()
    _forget_records(site)
    done = _run(site, "index", "--all", "-r", FQRN, "--json")
    assert done.returncode == 66
    codes = [(line["image"], line["exit_code"]) for line in map(json.loads, done.stdout.splitlines())]
    assert codes == [(image, 66), ("other", 37)]
    assert f"docker2cvmfs index {image}" in done.stderr


def test_index_finds_layers_side_by_side_and_says_what_is_missing(
    server: RegistryServer, site: Site, tmp_path: Path
) -> None:
    write_layout(tmp_path / "base", [_BASE])
    push(tmp_path / "base", f"{server.host}/base:1")
    made = _run(site, "make-thin", "-i", f"{server.host}/base:1", "-o", f"{server.host}/t:1", "-r", FQRN)
    assert made.returncode == 0, made.stderr
    _forget_records(site)
    done = _run(site, "index", f"{server.host}/app:1", "-r", FQRN)
    assert done.returncode == 66
    assert "1 of 2 layers are not in" in done.stderr
    assert _record(site, _BASE.diff_id)[0] == f"../../../layers/{_BASE.digest[7:]}".encode()
    assert len(site.names(b"/.chains")) == 2 + 1 + 3  # nothing for the layer that is missing


def test_records_go_with_repo_remove_and_with_index(server: RegistryServer, site: Site) -> None:
    image = f"{server.host}/app:1"
    assert _run(site, "publish", image, "-r", FQRN).returncode == 0
    command = Path(sys.executable).with_name("cvmfs-graphdriver")
    places = ["--storage", str(site.storage), "--keys", str(site.keys)]
    home = f"/.layers/{_TOP.digest[7:9]}/{_TOP.digest[7:]}"
    subprocess.run([command, "repo", "remove", *places, FQRN, home], check=True, timeout=60)
    assert site.names(f"/.chains/{_CHAIN[7:9]}/{_CHAIN[7:]}".encode()) == set()
    assert _record(site, _BASE.diff_id)
    with Transaction(site.open()) as transaction:  # as other tools remove a layer
        transaction.remove(f"/.layers/{_BASE.digest[7:9]}/{_BASE.digest[7:]}".encode())
        transaction.publish()
    assert _run(site, "index", "--all", "-r", FQRN).returncode == 66
    assert site.names(b"/.chains") == {b"", b"/.cvmfscatalog"}


def test_a_recipe_without_thin_images(server: RegistryServer, site: Site, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    lines = ["version: 1", f"cvmfs_repo: {FQRN}", "thin_images: false", "input:"]
    recipe.write_text("\n".join([*lines, f"  - 'https://{server.host}/app:1'", ""]))
    pushes = server.log.count("PUT /v2/")
    done = _run(site, "convert", recipe)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{server.host}/app:1@sha256:")
    assert server.log.count("PUT /v2/") == pushes
    _check_records(site)
