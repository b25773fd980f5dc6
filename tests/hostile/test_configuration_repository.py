"""A configuration repository whose publisher is the attacker."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cvmfs_graphdriver.cli.config.show import command as show
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
        f"CVMFS_CONFIG_REPOSITORY=config.org\nCVMFS_MOUNT_DIR={tmp_path}/cvmfs\nCVMFS_DEBUGLOG=/var/log/own\n"
    )

    def load(text: str) -> Configuration:
        place = tmp_path / "cvmfs/config.org/etc/cvmfs/domain.d/example.org.conf"
        place.parent.mkdir(parents=True)
        place.write_text(text)
        return load_configuration(FQRN, tmp_path / "etc", {})

    return load


@pytest.mark.skipif(not find_bash(), reason="needs bash")
def test_no_program_of_the_host_is_run(tmp_path: Path, shared: Shared) -> None:
    with pytest.raises(ConfigurationError, match=r"example\.org\.conf:2: .* over the network"):
        shared(f"A=1\nB=$(touch {tmp_path}/proof)\n")
    assert not (tmp_path / "proof").exists()


@pytest.mark.skipif(not find_bash(), reason="needs bash")
@pytest.mark.parametrize(
    ("host", "refused"),
    [
        # Our evaluator meets what it does not support in the foreign file, or in the host's file around it.
        (". CONFIG/common.conf\n", r"common\.conf:1: .* over the network"),
        ("source CONFIG/common.conf\nHOST=$(echo ours)\n", r"default\.local: bash would have to source"),
        ("HOST=$(echo ours)\n. CONFIG/common.conf\n", r"default\.local: bash would have to source"),
        ("for f in CONFIG/*.conf; do source $f; done\n", r"default\.local: bash would have to source"),
        ("cd CONFIG\n. ./common.conf\n", r"default\.local: bash would have to source"),
        ("HOST=$(echo ours)\n. ETC/link.conf\n", r"default\.local: bash would have to source"),
        (". ETC/link.conf\n", r"link\.conf:1: .* over the network"),
        (". ETC/outer.conf\n", r"common\.conf:1: .* over the network"),
        ("CVMFS_MOUNT_DIR=/elsewhere\n. CONFIG/common.conf\n", r"common\.conf:1: .* over the network"),
    ],
)
def test_a_file_of_the_host_that_sources_one_gives_it_no_bash(
    host: str, refused: str, tmp_path: Path, shared: Shared
) -> None:
    etc, config = tmp_path / "etc", tmp_path / "cvmfs/config.org/etc/cvmfs"
    (etc / "default.local").write_text(host.replace("CONFIG", str(config)).replace("ETC", str(etc)))
    (etc / "link.conf").symlink_to(config / "common.conf")
    (etc / "outer.conf").write_text(f". {config}/common.conf\n")
    config.mkdir(parents=True)
    (config / "common.conf").write_text(f"B=$(touch {tmp_path}/proof)\n")
    with pytest.raises(ConfigurationError, match=refused):
        shared("CVMFS_MOUNT_DIR=/elsewhere\n")
    assert not (tmp_path / "proof").exists()


@pytest.mark.skipif(not find_bash(), reason="needs bash")
def test_programs_of_the_host_do_not_see_what_came_over_the_network(tmp_path: Path, shared: Shared) -> None:
    (tmp_path / "etc/config.d").mkdir()
    (tmp_path / f"etc/config.d/{FQRN}.local").write_text(
        "export OWN=ours\nSEEN=$(env)\nREAD=$PYTHONPATH\n. ./more\n"
    )
    (tmp_path / "etc/config.d/more").write_text("export MORE=$(echo more)\n")
    found = shared("export PYTHONPATH=/tmp/evil\n")
    assert "OWN=ours" in found["SEEN"].value
    assert "evil" not in found["SEEN"].value
    assert found["READ"].value == "/tmp/evil"
    assert found["MORE"].value == "more"
    assert found.exported == {"OWN": "ours", "MORE": "more", "PYTHONPATH": "/tmp/evil"}


@pytest.mark.parametrize(
    "name",
    [
        "CVMFS_ALIEN_CACHE",
        "CVMFS_CACHE_BASE",
        "CVMFS_CACHE_DIR",
        "CVMFS_CHECK_PERMISSIONS",
        "CVMFS_CONFIG_REPO_REQUIRED",
        "CVMFS_DEBUGLOG",
        "CVMFS_HTTP_TRACING",
        "CVMFS_KEYS_DIR",
        "CVMFS_NFILES",
        "CVMFS_QUOTA_LIMIT",
        "CVMFS_SUID",
        "CVMFS_TALK_OWNER",
        "CVMFS_TALK_SOCKET",
        "CVMFS_TRACEFILE",
        "CVMFS_UID_MAP",
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


def test_where_content_comes_from_and_what_is_no_parameter_may_be_set(shared: Shared) -> None:
    names = [
        f"CVMFS_{name}"
        for name in (
            "SERVER_URL",
            "HTTP_PROXY",
            "FALLBACK_PROXY",
            "PAC_URLS",
            "PUBLIC_KEY",
            "USE_GEOAPI",
            "OURS",
        )
    ]
    found = shared("".join(f"{name}=value\n" for name in names))
    assert [found[name].value for name in names] == ["value"] * len(names)
    assert not found.ignored


def test_a_setting_of_the_node_cannot_be_removed(shared: Shared) -> None:
    assert shared("unset CVMFS_DEBUGLOG\n")["CVMFS_DEBUGLOG"].value == "/var/log/own"


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ("cvmfs/config.org/etc/cvmfs/keys", True),
        ("cvmfs/config.org/../evil", False),
        ("cvmfs/config.org.evil", False),
    ],
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


def test_config_show_says_what_is_ignored(tmp_path: Path, shared: Shared) -> None:
    shared("CVMFS_DEBUGLOG=/tmp/evil\n")
    shown = CliRunner().invoke(show, [FQRN, "--config", str(tmp_path / "etc")])
    assert "CVMFS_DEBUGLOG=/var/log/own " in shown.stdout
    assert shown.stderr.startswith("warning: CVMFS_DEBUGLOG (")
    assert "example.org.conf:1) is ignored: it decides where this node writes as root" in shown.stderr
