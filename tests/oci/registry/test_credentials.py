import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.oci.errors import CredentialsError
from cvmfs_graphdriver.oci.registry.credentials import (
    Credentials,
    DockerConfig,
    SingleCredentials,
    default_docker_config,
)


def _auth(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()


def _config(directory: Path, **members: Any) -> DockerConfig:
    path = directory / "config.json"
    path.write_text(json.dumps(members))
    return DockerConfig(path)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``docker-credential-fake`` answers what stands in files named after servers."""
    answers = tmp_path / "answers"
    answers.mkdir()
    program = tmp_path / "bin/docker-credential-fake"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'read -r server; file="' + str(answers) + '/$(echo "$server" | tr / _)"\n'
        'test "$1" = get && test -e "$file" && { cat "$file"; exit 0; }\n'
        'test -e "' + str(answers) + '/broken" && { echo "no keyring"; exit 2; }\n'
        'echo "credentials not found in native keychain"; exit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return answers


def test_no_file_means_no_credentials(tmp_path: Path) -> None:
    assert DockerConfig(tmp_path / "none").credentials_for("r.org") is None


@pytest.mark.parametrize(
    "key", ["r.org:5000", "https://r.org:5000", "https://r.org:5000/v1/", "http://r.org:5000/v2/"]
)
def test_the_file_names_a_registry_in_many_ways(tmp_path: Path, key: str) -> None:
    config = _config(tmp_path, auths={key: {"auth": _auth("ada", "a:b")}})
    assert config.credentials_for("r.org:5000") == Credentials("ada", "a:b")
    assert config.credentials_for("r.org") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_docker_hub_has_several_names(tmp_path: Path, key: str) -> None:
    config = _config(tmp_path, auths={key: {"auth": _auth("ada", "x")}})
    assert config.credentials_for("docker.io") == Credentials("ada", "x")


def test_tokens_stand_beside_the_name(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        auths={
            "a.org": {"auth": _auth("<token>", ""), "identitytoken": "i"},
            "b.org": {"registrytoken": "r"},
            "c.org": {"username": "u", "password": "p"},
            "d.org": {},
        },
    )
    assert config.credentials_for("a.org") == Credentials("<token>", "", identity_token="i")
    assert config.credentials_for("b.org") == Credentials(registry_token="r")
    assert config.credentials_for("c.org") == Credentials("u", "p")
    assert config.credentials_for("d.org") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "not JSON"),
        ('{"auths": []}', "not a JSON object"),
        ('{"auths": {"r.org": {"auth": "%%%"}}}', "not base64"),
        ('{"auths": {"r.org": {"auth": "YWJj"}}}', "not base64 of NAME:PASSWORD"),
        ('{"auths": {"r.org": {"auth": "/w=="}}}', "not base64"),
        ('{"credsStore": "../../bin/sh"}', "not a valid name of a credential helper"),
        ('{"credsStore": "surely-absent"}', "not installed"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CredentialsError, match=reason):
        DockerConfig(tmp_path / "config.json").credentials_for("r.org")


def test_a_helper_is_asked(tmp_path: Path, helper: Path) -> None:
    (helper / "r.org").write_text('{"ServerURL": "r.org", "Username": "ada", "Secret": "s"}')
    (helper / "https:__index.docker.io_v1_").write_text('{"Username": "<token>", "Secret": "t"}')
    config = _config(tmp_path, credsStore="fake", auths={"r.org": {}})
    assert config.credentials_for("r.org") == Credentials("ada", "s")
    assert config.credentials_for("docker.io") == Credentials(identity_token="t")
    assert config.credentials_for("other.org") is None


def test_a_registrys_own_helper_comes_first(tmp_path: Path, helper: Path) -> None:
    (helper / "r.org").write_text('{"Username": "ada", "Secret": "s"}')
    auths = {"r.org": {"auth": _auth("bob", "x")}, "o.org": {"auth": _auth("bob", "x")}}
    config = _config(tmp_path, credHelpers={"r.org": "fake"}, auths=auths)
    assert config.credentials_for("r.org") == Credentials("ada", "s")
    assert config.credentials_for("o.org") == Credentials("bob", "x")


def test_a_helper_that_fails_is_no_absence(tmp_path: Path, helper: Path) -> None:
    (helper / "broken").touch()
    with pytest.raises(CredentialsError, match="docker-credential-fake failed for r.org: 'no keyring'"):
        _config(tmp_path, credsStore="fake").credentials_for("r.org")


def test_a_helper_that_answers_nonsense_is_named(tmp_path: Path, helper: Path) -> None:
    (helper / "r.org").write_text("{}")
    with pytest.raises(CredentialsError, match="docker-credential-fake: 'Username'"):
        _config(tmp_path, credsStore="fake").credentials_for("r.org")


def test_credentials_by_hand_are_for_one_registry(tmp_path: Path) -> None:
    others = _config(tmp_path, auths={"o.org": {"auth": _auth("bob", "x")}})
    keychain = SingleCredentials("r.org", Credentials("ada", "s"), others)
    assert keychain.credentials_for("r.org") == Credentials("ada", "s")
    assert keychain.credentials_for("o.org") == Credentials("bob", "x")


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Credentials("ada", "secret", "secret", "secret"))


def test_dockers_environment_is_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert default_docker_config() == tmp_path / "config.json"
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_docker_config() == Path("/home/ada/.docker/config.json")
