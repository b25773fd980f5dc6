"""What parameters mean: types, units, defaults, and refusals that say where."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.configuration.meaning import settings_of
from cvmfs_graphdriver.client.configuration.search import load_configuration
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.repository.digest import Algorithm, Digest

FQRN = "atlas.example.org"
MINIMUM = "CVMFS_SERVER_URL=http://one/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_PUBLIC_KEY=/k\n"


def _load(tmp_path: Path, text: str) -> RepositorySettings:
    (tmp_path / "default.local").write_text(text)
    return settings_of(load_configuration(FQRN, tmp_path, {}), tmp_path)


def test_defaults(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMUM)
    assert settings.network.servers == ("http://one/atlas.example.org",)
    assert (settings.network.timeout, settings.network.timeout_direct) == (5, 5)
    assert settings.external is None
    assert settings.cache.directory == settings.cache.workspace == Path("/var/lib/cvmfs/shared")
    assert settings.cache.quota == 4000 * 1024 * 1024
    assert settings.talk_socket == Path("/var/lib/cvmfs/shared/cvmfs_io.atlas.example.org")
    assert settings.trust.blacklists == (tmp_path / "blacklist",)
    assert settings.revision.auto_update
    assert settings.revision.max_ttl is None
    assert not settings.presentation.claim_ownership
    assert settings.presentation.magic_xattrs == "rootonly"


def test_every_kind_of_value(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    settings = _load(
        tmp_path,
        MINIMUM
        + """
CVMFS_SERVER_URL="http://a/x/; https://b ;file:///c"
CVMFS_MAX_SERVERS=2
CVMFS_PUBLIC_KEY=/a.pub:/b.pub
CVMFS_CACHE_BASE=/scratch
CVMFS_SHARED_CACHE=NO
CVMFS_QUOTA_LIMIT=-1
CVMFS_TIMEOUT=7.5
CVMFS_MAX_TTL=2
CVMFS_REPOSITORY_TAG=v1
CVMFS_EXTERNAL_URL=http://ext
CVMFS_EXTERNAL_HTTP_PROXY='http://p:1|http://q:2;DIRECT'
CVMFS_XATTR_PRIVILEGED_GIDS=1,2
CVMFS_HIDE_MAGIC_XATTRS=yes
export ARCH=x86
""",
    )
    assert settings.network.servers == ("http://a/x", "https://b")
    assert settings.trust.public_keys == (Path("/a.pub"), Path("/b.pub"))
    assert settings.cache.directory == Path("/scratch/atlas.example.org")
    assert settings.cache.quota is None
    assert settings.network.timeout == 7.5
    assert settings.revision.max_ttl == 120
    assert settings.revision.tag == "v1"
    assert not settings.revision.auto_update
    assert settings.external is not None
    assert settings.external.servers == ("http://ext",)
    assert settings.external.proxies == "http://p:1|http://q:2;DIRECT"
    assert settings.external.timeout_direct == 10
    assert settings.presentation.privileged_gids == {1, 2}
    assert settings.presentation.magic_xattrs == "never"
    assert settings.presentation.variables == {"ARCH": "x86"}


def test_pinning_by_hash_and_date(tmp_path: Path) -> None:
    digest = "ab" * 20
    text = f"CVMFS_ROOT_HASH={digest}-rmd160\nCVMFS_REPOSITORY_DATE=2026-01-31T12:00:00Z\n"
    revision = _load(tmp_path, MINIMUM + text).revision
    assert revision.root_hash == Digest(Algorithm.RMD160, b"\xab" * 20)
    assert revision.date == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_keys_directory(tmp_path: Path) -> None:
    for name in ("b.pub", "a.pub", "c.txt"):
        (tmp_path / "keys").mkdir(exist_ok=True)
        (tmp_path / "keys" / name).touch()
    settings = _load(tmp_path, MINIMUM + "CVMFS_PUBLIC_KEY=\n")
    assert settings.trust.public_keys == (tmp_path / "keys/a.pub", tmp_path / "keys/b.pub")


def test_blacklist_of_the_configuration_repository(tmp_path: Path) -> None:
    shared = tmp_path / "config.org" / "etc" / "cvmfs"
    shared.mkdir(parents=True)
    (tmp_path / "default.conf").write_text(
        f"CVMFS_CONFIG_REPOSITORY=config.org\nCVMFS_MOUNT_DIR={tmp_path}\n"
    )
    settings = _load(tmp_path, MINIMUM)
    assert settings.trust.blacklists == (tmp_path / "blacklist", shared / "blacklist")


def test_alien_cache(tmp_path: Path) -> None:
    cache = _load(tmp_path, MINIMUM + "CVMFS_ALIEN_CACHE=/alien\nCVMFS_CACHE_DIR=/mine\n").cache
    assert (cache.directory, cache.workspace, cache.alien, cache.quota) == (
        Path("/alien"),
        Path("/mine"),
        True,
        None,
    )


def test_single_client_profile_needs_no_proxy(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMUM + "CVMFS_HTTP_PROXY=\nCVMFS_CLIENT_PROFILE=single\n")
    assert settings.network.proxies == "auto;DIRECT"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CVMFS_SERVER_URL=", "no server is configured; set CVMFS_SERVER_URL"),
        ("CVMFS_HTTP_PROXY=", "no proxy is configured; set CVMFS_HTTP_PROXY"),
        ("CVMFS_PUBLIC_KEY=", "no public key is configured; put the repository's key into"),
        ("CVMFS_SERVER_URL='http://a;ftp://b'", r"names 'ftp://b', which is not an http.*default.local:4\)"),
        ("CVMFS_TIMEOUT=soon", r"CVMFS_TIMEOUT='soon' must be a number of at least 0 .*default.local:4\)"),
        ("CVMFS_TIMEOUT=-1", "must be a number of at least 0"),
        ("CVMFS_TIMEOUT=nan", "must be a number of at least 0"),
        ("CVMFS_QUOTA_LIMIT=1e99", "must be a number of at least -1"),
        ("CVMFS_QUOTA_LIMIT=-2", "must be a number of at least -1"),
        ("CVMFS_CACHE_BASE=relative", "not an absolute path"),
        ("CVMFS_ROOT_HASH=xyz", "not a digest"),
        ("CVMFS_REPOSITORY_DATE=yesterday", "not a date"),
        ("CVMFS_IPFAMILY_PREFER=5", "must be 4 or 6"),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=maybe", "must be rootonly"),
        ("CVMFS_XATTR_PRIVILEGED_GIDS=root", "not a list of numbers"),
    ],
)
def test_refusals_say_what_and_where(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _load(tmp_path, MINIMUM + text + "\n")
