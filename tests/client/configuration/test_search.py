"""The search order of configuration files, and the record of what set each value."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.configuration.search import load_configuration
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.shell.environment import Setting

FQRN = "atlas.example.org"
ORDER = [
    "etc/default.conf",
    "etc/default.d/10-a.conf",
    "etc/default.d/20-b.conf",
    "repo/etc/cvmfs/default.conf",
    "etc/default.local",
    "repo/etc/cvmfs/domain.d/example.org.conf",
    "etc/domain.d/example.org.conf",
    "etc/domain.d/example.org.local",
    "repo/etc/cvmfs/config.d/atlas.example.org.conf",
    "etc/config.d/atlas.example.org.conf",
    "etc/config.d/atlas.example.org.local",
]

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_later_files_win_in_the_documented_order(tmp_path: Path, write: Write) -> None:
    for position, name in enumerate(ORDER):
        keys = "".join(f"K{later}={position}\n" for later in range(position, len(ORDER)))
        first = "CVMFS_CONFIG_REPOSITORY=repo\n" if position == 0 else ""
        write(name, f"{first}{keys}ALL=$ALL,{position}\n")
    for name in ("etc/default.d/30.txt", "etc/domain.d/other.org.conf", "etc/config.d/lhcb.example.org.conf"):
        write(name, "ALL=wrong\n")
    result = load_configuration(FQRN, tmp_path / "etc", {}, lambda name, _: tmp_path / name)
    assert [str(path.relative_to(tmp_path)) for path in result.files] == ORDER
    assert result["ALL"] == Setting("," + ",".join(map(str, range(11))), str(tmp_path / ORDER[-1]), 2)
    for position in range(len(ORDER)):
        assert result[f"K{position}"].value == str(position)
        assert result[f"K{position}"].file == str(tmp_path / ORDER[position])


def test_overrides_win_over_every_file(tmp_path: Path, write: Write) -> None:
    write("etc/config.d/atlas.example.org.local", "A=file\nB=$A\n")
    result = load_configuration(FQRN, tmp_path / "etc", {"A": "given"})
    assert result["A"] == Setting("given", "command line")
    assert result["B"].value == "file"


def test_templates_are_replaced_and_exports_kept(tmp_path: Path, write: Write) -> None:
    write(
        "etc/default.conf", "URL='http://s/@fqrn@;http://t/@org@/@proxy@'\nexport ARCH=x86_64\nexport NEVER\n"
    )
    result = load_configuration(FQRN, tmp_path / "etc", {})
    assert result["URL"].value == "http://s/atlas.example.org;http://t/atlas/@proxy@"
    assert result.exported == {"ARCH": "x86_64"}
    assert len(result) == len(list(result)) == 2


def test_default_domain_completes_a_name(tmp_path: Path, write: Write) -> None:
    write("etc/default.local", "CVMFS_DEFAULT_DOMAIN=example.org\nURL=@fqrn@\n")
    write("etc/domain.d/example.org.conf", "D=1\n")
    result = load_configuration("atlas", tmp_path / "etc", {})
    assert result.fqrn == "atlas.example.org"
    assert result["URL"].value == "atlas.example.org"
    assert result["D"].value == "1"


def test_configuration_repository_is_asked_for_where_it_should_be_mounted(
    tmp_path: Path, write: Write
) -> None:
    write("etc/default.conf", f"CVMFS_CONFIG_REPOSITORY=config.org\nCVMFS_MOUNT_DIR={tmp_path}\n")
    write("config.org/etc/cvmfs/default.conf", "A=shared\nCVMFS_CONFIG_REPOSITORY=evil.org\n")
    assert load_configuration(FQRN, tmp_path / "etc", {})["A"].value == "shared"
    assert "A" not in load_configuration("config.org", tmp_path / "etc", {})


def test_configuration_repository_that_is_required_and_absent(tmp_path: Path, write: Write) -> None:
    write("etc/default.d/50.conf", f"CVMFS_CONFIG_REPOSITORY=config.org\nCVMFS_MOUNT_DIR={tmp_path}\n")
    load_configuration(FQRN, tmp_path / "etc", {})
    write("etc/default.conf", "CVMFS_CONFIG_REPO_REQUIRED=yes\n")
    with pytest.raises(ConfigurationError, match=r"config\.org is unavailable"):
        load_configuration(FQRN, tmp_path / "etc", {})
    write("etc/default.d/60.conf", "CVMFS_CONFIG_REPOSITORY=../x\n")
    with pytest.raises(ConfigurationError, match=r"60\.conf:1.*not a valid repository name"):
        load_configuration(FQRN, tmp_path / "etc", {})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "-x", "a" * 300, "a\n"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a valid repository name"):
        load_configuration(name, tmp_path, {})


def test_nothing_configured_at_all(tmp_path: Path) -> None:
    assert len(load_configuration(FQRN, tmp_path / "absent", {})) == 0
