"""server.conf has its stock meaning, with the stock defaults."""

from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.options import RepositoryOptions, Weights
from cvmfs_graphdriver.publisher.server_settings import load_server_settings
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.chunking import ChunkSizes

STOCK = """\
# Created by cvmfs_server.
CVMFS_CREATOR_VERSION=2.11.2
CVMFS_REPOSITORY_NAME=images.example.org
CVMFS_USER="somebody"
CVMFS_UPSTREAM_STORAGE=local,/srv/cvmfs/images.example.org/data/txn,/srv/cvmfs/images.example.org
CVMFS_IGNORE_XDIR_HARDLINKS=true
"""


def settings(tmp_path: Path, text: str) -> RepositoryOptions:
    file = tmp_path / "server.conf"
    file.write_text(text)
    return load_server_settings(file)


def test_what_a_stock_file_says_and_leaves_out(tmp_path: Path) -> None:
    assert settings(tmp_path, STOCK) == RepositoryOptions(
        catalog_weights=None, auto_tag=True, include_xattrs=False, break_cross_directory_hardlinks=True
    )


def test_every_parameter(tmp_path: Path) -> None:
    text = """
    CVMFS_INCLUDE_XATTRS=yes
    export CVMFS_IGNORE_SPECIAL_FILES=on  # devices
    CVMFS_IGNORE_XDIR_HARDLINKS='false'
    CVMFS_AUTO_TAG=0
    CVMFS_COMPRESSION_ALGORITHM=none
    CVMFS_AUTOCATALOGS=true
    CVMFS_AUTOCATALOGS_MAX_WEIGHT=5000
    CVMFS_MIN_CHUNK_SIZE=1000
    CVMFS_AVG_CHUNK_SIZE=2000
    CVMFS_MAX_CHUNK_SIZE=4000
    """
    assert settings(tmp_path, text) == RepositoryOptions(
        compression=Compression.NONE,
        chunking=ChunkSizes(1000, 2000, 4000),
        catalog_weights=Weights(most=5000, least=1000),
        ignore_special_files=True,
    )
    assert settings(tmp_path, "CVMFS_USE_FILE_CHUNKING=false").chunking is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("CVMFS_INCLUDE_XATTRS=perhaps", "CVMFS_INCLUDE_XATTRS: 'perhaps' is neither yes nor no"),
        ("CVMFS_COMPRESSION_ALGORITHM=zstd", "'zstd' is not one of default, zlib, none"),
        ("CVMFS_AVG_CHUNK_SIZE=1", "between the minimum and the maximum"),
        ("CVMFS_MAX_CHUNK_SIZE=big", "is not a number"),
        ("\nrm -r /", ":2: this is not NAME=VALUE"),
        ("CVMFS_USER=$(id)", ":1: CVMFS_USER must be written without"),
        ("CVMFS_USER='", ":1: No closing quotation"),
        ("A=" + "x" * 70_000, "too big"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(StorageError, match=r"server\.conf") as raised:
        settings(tmp_path, text)
    assert complaint in str(raised.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        load_server_settings(tmp_path / "none")
