from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

LEAST = "CVMFS_S3_HOST=s3.example.org\nCVMFS_S3_BUCKET=images\nCVMFS_S3_ACCESS_KEY=a\nCVMFS_S3_SECRET_KEY=b\n"


def load(tmp_path: Path, text: str) -> S3Settings:
    file = tmp_path / "s3.conf"
    file.write_text(text)
    return S3Settings.load(file)


def test_a_file_as_administrators_write_it(tmp_path: Path) -> None:
    text = """
# where the objects go
CVMFS_S3_HOST=192.0.2.7
CVMFS_S3_PORT=9000
export CVMFS_S3_BUCKET='images'   # made before
CVMFS_S3_ACCESS_KEY="key with # and = in it"
CVMFS_S3_SECRET_KEY=s/e+cret=
CVMFS_S3_REGION=eu-west-3
CVMFS_S3_DNS_BUCKETS=false
CVMFS_S3_USE_HTTPS=yes
CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=4
CVMFS_S3_MAX_RETRIES=7
CVMFS_S3_TIMEOUT=12
CVMFS_S3_X_AMZ_ACL=
CVMFS_S3_PEEK_BEFORE_PUT=yes
"""
    assert load(tmp_path, text) == S3Settings(
        host="192.0.2.7:9000",
        bucket="images",
        access_key="key with # and = in it",
        secret_key="s/e+cret=",
        region="eu-west-3",
        https=True,
        dns_buckets=False,
        parallel=4,
        retries=7,
        timeout=12,
        acl="",
    )


def test_stock_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, LEAST)
    assert (settings.host, settings.dns_buckets, settings.https) == ("s3.example.org", True, False)
    assert (settings.parallel, settings.retries, settings.timeout, settings.acl) == (16, 3, 60, "public-read")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("CVMFS_S3_BUCKET=", "CVMFS_S3_BUCKET: it is required"),
        ("CVMFS_S3_BUCKET=a/b", "is not a valid bucket name"),
        ("CVMFS_S3_HOST=http://x/", "is not a valid host"),
        ("CVMFS_S3_PORT=65536", "is not a number from 0 to 65535"),
        ("CVMFS_S3_PORT=-1", "is not a number"),
        ("CVMFS_S3_FLAVOR=azure", "azure is not supported"),
        ("CVMFS_S3_X_AMZ_ACL=everybody", "'everybody' is not one of"),
        ("CVMFS_S3_USE_HTTPS=perhaps", "neither yes nor no"),
        ("CVMFS_S3_SECRET_KEY=$(cat /secret)", ":5: "),
        ("CVMFS_S3_SECRET_KEY='open", ":5: "),
        ("rm -rf /", ":5: this is not NAME=VALUE"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(StorageError, match=words.replace("(", r"\(").replace("$", r"\$")):
        load(tmp_path, LEAST + more)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        S3Settings.load(tmp_path / "none")
    (tmp_path / "bin").write_bytes(b"\xff")
    with pytest.raises(StorageError, match="is not UTF-8 text"):
        S3Settings.load(tmp_path / "bin")
    with pytest.raises(StorageError, match="too big"):
        load(tmp_path, "#" * 70_000)
