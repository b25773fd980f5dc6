"""A configuration repository whose publisher is the attacker."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.checkup import Level, check_repository
from cvmfs_graphdriver.client.configuration.search import Configuration, load_configuration
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.shell.bash import find_bash

FQRN = "atlas.example.org"
Shared = Callable[[str], Configuration]


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    """Gives the configuration that results from the text of the configuration repository's file."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/default.conf").write_text(
        f"CVMFS_CONFIG_REPOSITORY=config.org\nCVMFS_MOUNT_DIR={tmp_path}\nCVMFS_DEBUGLOG=/var/log/own\n"
    )

    def load(text: str) -> Configuration:
        place = tmp_path / "config.org/etc/cvmfs/domain.d/example.org.conf"
        place.parent.mkdir(parents=True)
        place.write_text(text)
        return load_configuration(FQRN, tmp_path / "etc", {})

    return load


@pytest.mark.skipif(not find_bash(), reason="needs bash")
def test_no_program_of_the_host_is_run(tmp_path: Path, shared: Shared) -> None:
    with pytest.raises(ConfigurationError, match=r"example\.org\.conf:2: .* over the network"):
        shared(f"A=1\nB=$(touch {tmp_path}/proof)\n")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "name",
    [
        "CVMFS_ALIEN_CACHE",
        "CVMFS_CACHE_BASE",
        "CVMFS_CACHE_DIR",
        "CVMFS_DEBUGLOG",
        "CVMFS_KEYS_DIR",
        "CVMFS_SUID",
        "CVMFS_TALK_OWNER",
        "CVMFS_TALK_SOCKET",
        "CVMFS_USYSLOG",
        "CVMFS_WORKSPACE",
        "LD_PRELOAD",
    ],
)
def test_parameters_of_the_node_are_ignored(name: str, shared: Shared) -> None:
    found = shared(f"A=1\nexport {name}=/tmp/evil\n")
    assert found["A"].value == "1"
    assert name not in found or found[name].value == "/var/log/own"
    assert name not in found.exported
    (ignored,) = found.ignored
    assert ignored.name == name
    assert "example.org.conf:2) is ignored" in str(ignored)


def test_a_setting_of_the_node_cannot_be_removed(shared: Shared) -> None:
    assert shared("unset CVMFS_DEBUGLOG\n")["CVMFS_DEBUGLOG"].value == "/var/log/own"


@pytest.mark.parametrize(
    ("value", "counts"),
    [("config.org/etc/cvmfs/keys", True), ("config.org/../evil", False), ("config.org.evil", False)],
)
def test_keys_come_from_the_repository_itself(
    value: str, counts: bool, tmp_path: Path, shared: Shared
) -> None:
    found = shared(f"CVMFS_KEYS_DIR={tmp_path}/{value}\n")
    assert ("CVMFS_KEYS_DIR" in found) == counts
    assert len(found.ignored) == (not counts)


def test_config_check_shows_what_is_ignored(tmp_path: Path, shared: Shared) -> None:
    shared("CVMFS_ALIEN_CACHE=/tmp/evil\n")
    found = {finding.level: finding.what for finding in check_repository(FQRN, tmp_path / "etc")}
    assert "CVMFS_ALIEN_CACHE" in found[Level.WARNING]
    assert "is ignored: it decides where this node writes as root" in found[Level.WARNING]
