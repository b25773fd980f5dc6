"""``convert`` and ``loop`` as release managers run them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import TestLayer, push, skopeo, write_layout
from tests.support.registry import PASSWORD, USERNAME, RegistryServer, run_registry
from tests.support.storage_site import FQRN, Site
from tests.support.tars import tar_of

_PROGRAM = Path(sys.executable).with_name("docker2cvmfs")
_BASE = TestLayer(tar_of({"base": b"base"}))


def _layer(name: str) -> TestLayer:
    return TestLayer(tar_of({name: name.encode()}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    with run_registry(tmp_path / "registry") as registry:
        for tag in ("1.0", "1.1", "2.0"):
            write_layout(tmp_path / tag, [_BASE, _layer(tag)])
            push(tmp_path / tag, f"{registry.host}/app:{tag}")
        yield registry


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.sign_for_today()
    return site


def _recipe(tmp_path: Path, *inputs: str, **members: str) -> Path:
    lines = ["version: 1", f"cvmfs_repo: {FQRN}", *(f"{k}: '{v}'" for k, v in members.items()), "input:"]
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join([*lines, *(f"  - '{text}'" for text in inputs), ""]))
    return file


def _convert(site: Site, recipe: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    places = ["--storage", str(site.storage), "--keys", str(site.keys)]
    return subprocess.run(
        [_PROGRAM, "convert", recipe, *places, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "error", "DOCKER_CONFIG": "/nonexistent", **environment},
    )


def test_a_recipe_is_converted_once(server: RegistryServer, site: Site, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, f"https://{server.host}/app:1.*", f"http://{server.host}/app:2.0")
    done = _convert(site, recipe)
    assert done.returncode == 0, done.stderr
    names = [line.partition("@")[0] for line in done.stdout.splitlines()]
    assert names == [f"{server.host}/app_thin:{tag}" for tag in ("1.0", "1.1", "2.0")]
    for tag in ("1.0", "1.1", "2.0"):
        assert len(site.tree(b"/layers/" + _layer(tag).digest[7:].encode())) == 2
        skopeo("inspect", "--tls-verify=false", f"docker://{server.host}/app_thin:{tag}")
    assert site.open().manifest().revision == 2  # all three at once
    # The base was fetched once, though three images have it.
    assert server.log.count(f"GET /v2/app/blobs/{_BASE.digest} ") == 1
    before, pushes = site.files(), server.log.count("PUT /v2/")
    again = _convert(site, recipe, "--json")
    assert again.returncode == 0
    assert site.files() == before
    assert server.log.count("PUT /v2/") == pushes
    accounts = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(a["pushed"], a["new_layers"], a["shared_layers"]) for a in accounts] == [(False, 0, 2)] * 3


def test_one_bad_image_does_not_stop_the_rest(server: RegistryServer, site: Site, tmp_path: Path) -> None:
    bad = TestLayer(tar_of({"../escape": b""}))
    write_layout(tmp_path / "bad", [_BASE, bad])
    push(tmp_path / "bad", f"{server.host}/bad:1")
    inputs = ("absent:1", "absent:*", "bad:1", "app:2.0")
    recipe = _recipe(tmp_path, *(f"https://{server.host}/{name}" for name in inputs))
    done = _convert(site, recipe, "--json")
    assert done.returncode == 65
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome.get("exit_code", 0) for outcome in outcomes] == [34, 34, 38, 0]
    assert [outcome["recipe"] for outcome in outcomes] == [f"{recipe}:{line}" for line in (4, 5, 6, 7)]
    lines = done.stderr.splitlines()
    assert lines[2].startswith(f"docker2cvmfs: {recipe}:6: {server.host}/bad:1: layer {bad.digest}")
    assert "3 of 4 images" in lines[-1]
    assert len(site.tree(b"/layers/" + _layer("2.0").digest[7:].encode())) == 2


def test_a_recipe_that_is_none_is_one_line(site: Site, tmp_path: Path) -> None:
    before = site.files()
    recipe = _recipe(tmp_path, "fedora")
    done = _convert(site, recipe)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith(f"docker2cvmfs: {recipe}:4: 'fedora' does not begin with https://")
    assert len(done.stderr.splitlines()) == 1
    assert _convert(site, tmp_path / "none.yaml").returncode == 64
    assert site.files() == before


def test_the_recipes_user_pushes_with_the_known_variable(
    server: RegistryServer, site: Site, tmp_path: Path
) -> None:
    with run_registry(tmp_path / "guarded", basic=True) as guarded:
        output = f"https://{guarded.host}/$(repository):$(tag)"
        recipe = _recipe(tmp_path, f"https://{server.host}/app:2.0", user=USERNAME, output_format=output)
        assert _convert(site, recipe, "--json").returncode == 65
        assert _convert(site, recipe, DUCC_OUTPUT_REGISTRY_PASS="wrong").returncode == 65
        done = _convert(site, recipe, DUCC_OUTPUT_REGISTRY_PASS=PASSWORD)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{guarded.host}/app:2.0@sha256:")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_sees_what_is_new_until_it_is_interrupted(
    server: RegistryServer, site: Site, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = _recipe(tmp_path, f"https://{server.host}/app:3.*")
    places = ["--storage", str(site.storage), "--keys", str(site.keys)]
    process = subprocess.Popen(
        [_PROGRAM, "loop", recipe, "--pause", "0.1", *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    try:
        assert process.stdout is not None
        time.sleep(1)
        write_layout(tmp_path / "3.0", [_BASE, _layer("3.0")])
        push(tmp_path / "3.0", f"{server.host}/app:3.0")
        assert process.stdout.readline().startswith(f"{server.host}/app_thin:3.0@")
        recipe.write_text("nonsense")
        time.sleep(0.5)
        _recipe(tmp_path, f"https://{server.host}/app:2.0")
        while "2.0@" not in process.stdout.readline():
            pass
        process.send_signal(number)
        _, complaints = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert complaints.splitlines()[-1] == "docker2cvmfs: interrupted"
    assert f"docker2cvmfs: {recipe}:1: a recipe must be a mapping" in complaints
    assert len(site.tree(b"/layers/" + _layer("3.0").digest[7:].encode())) == 2
