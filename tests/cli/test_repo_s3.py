"""The life of a repository in S3 by its commands, and a client that mounts it from there."""

import json
import secrets
from pathlib import Path

import pytest

from demo.seaweed import Seaweed
from tests.cli.test_repo import run
from tests.cli.test_repo_care import tar
from tests.support.mounts import end
from tests.support.storage_site import FQRN

pytestmark = pytest.mark.root


def test_a_repository_in_s3(tmp_path: Path, s3: Seaweed) -> None:
    bucket, keys = f"b{secrets.token_hex(6)}", tmp_path / "keys"
    configuration = s3.configuration(bucket)

    def do(verb: str, *words: str | Path) -> str:
        done = run("repo", verb, FQRN, "--storage", configuration, "--keys", keys, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert do("create") == f"{keys / FQRN}.pub\n"
    assert run("repo", "create", FQRN, "--storage", configuration, "--keys", keys).returncode == 40
    layer = tar(tmp_path / "layer.tar.gz")
    assert do("ingest", layer, "/layers/one", "--tag", "first") == "2\n"
    do("ingest", layer, "/layers/two")
    do("remove", "/layers/two")
    do("tag", "now")
    do("resign")
    do("check")
    assert f"{FQRN}" in do("info")
    assert json.loads(do("gc", "--keep-days", "0", "--index", tmp_path / "index", "--json"))["objects"] > 0
    do("check")
    do("rollback", "--tag", "first")
    do("check")

    etc, mounted = tmp_path / "etc", tmp_path / "mounted"
    (etc / "config.d").mkdir(parents=True)
    mounted.mkdir()
    (etc / "default.local").write_text(
        f"CVMFS_HTTP_PROXY=DIRECT\nCVMFS_CACHE_BASE={tmp_path / 'cache'}\nCVMFS_CLAIM_OWNERSHIP=no\n"
    )
    (etc / "config.d" / f"{FQRN}.conf").write_text(
        f"CVMFS_SERVER_URL=http://{s3.host}/{bucket}/@fqrn@\nCVMFS_PUBLIC_KEY={keys / FQRN}.pub\n"
    )
    done = run("mount", FQRN, mounted, "--config", etc)
    try:
        assert done.returncode == 0, done.stderr
        assert (mounted / "layers/one/d/g").read_text() == "hello"
        assert [path.name for path in (mounted / "layers").iterdir()] == ["one"]
    finally:
        end(mounted)
