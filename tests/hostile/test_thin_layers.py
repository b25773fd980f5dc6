"""A layer's thin.json that is not what it seems: refused before it costs memory or disk."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.errors import ApplyError
from cvmfs_graphdriver.layers.store import StoredLayer
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.layer.compression import decompressed
from tests.support.tars import tar_of
from tests.support.trees import SAME

SIZE = 2 << 30


def sparse_thin(size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo("thin.json")
    info.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": f"{size},0"}
    return info


@pytest.mark.root
def test_a_sparse_thin_json_is_not_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(tar_of(sparse_thin(SIZE)))
    assert len(packed) < 300
    with pytest.raises(ApplyError, match=f"its thin.json has {SIZE} bytes, more than 1048576"):
        apply_layer(decompressed("the layer", io.BytesIO(packed)), tmp_path, SAME)
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_long_thin_json_among_other_files_is_an_ordinary_file(tmp_path: Path) -> None:
    size, thin = apply_layer(io.BytesIO(tar_of({"a": b"1"}, sparse_thin(2 << 20))), tmp_path, SAME)
    assert (size, thin) == ((2 << 20) + 1, None)


@pytest.mark.root
def test_a_thin_json_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tarfile.TarInfo("thin.json")
    pipe.type = tarfile.FIFOTYPE
    assert apply_layer(io.BytesIO(tar_of({"thin.json": b"{}"}, pipe)), tmp_path, SAME)[1] is None


def test_a_long_thin_json_on_disk_is_not_read(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    with open(layer / "thin.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ThinImageFormatError, match="longer than the limit of 1048576 bytes"):
        _ = StoredLayer("layer", layer).thin
