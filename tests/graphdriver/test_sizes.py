"""How large layers may grow: what is read, what is refused, and the limit itself where the kernel has it."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.graphdriver.errors import DriverOptionError
from cvmfs_graphdriver.graphdriver.options import DriverOptions
from cvmfs_graphdriver.graphdriver.sizes import SizeLimits, parse_size
from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import umount
from cvmfs_graphdriver.layers.store import LayerStore


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("10G", 10 << 30), ("1.5 gb", 3 << 29), ("2k", 2048), ("7MiB", 7 << 20), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("size", text) == size
    assert DriverOptions.parse([f"overlay2.size={text}"]).size == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1.2.3G", "1 X", "1GG", "0x10"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(DriverOptionError, match="overlay2.size must be a size such as 10G"):
        DriverOptions.parse([f"overlay2.size={text}"])


def test_where_there_can_be_no_limits(tmp_path: Path) -> None:
    with pytest.raises(DriverOptionError, match="is on extfs"):
        SizeLimits(tmp_path, "extfs", 1)
    # This is no xfs; but as with one that is mounted without pquota, the kernel refuses.
    with pytest.raises(DriverOptionError, match="has no project quota"):
        SizeLimits(tmp_path, "xfs", 1)
    assert SizeLimits(tmp_path, "extfs").wanted({}, container=True) == 0


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """An xfs with project quotas."""
    place, image = tmp_path / "mounted", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(320 << 20)
    try:
        subprocess.run(["mkfs.xfs", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop,pquota", image, place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no xfs with project quotas can be had here: {error}")
    yield place
    try:
        umount(place)
    except MountError as error:
        pytest.fail(str(error))


@pytest.mark.root
def test_a_limit(xfs: Path) -> None:
    store = LayerStore(xfs / "home")
    store.prepare()
    limits = SizeLimits(store.home, "xfs", 2 << 20)
    layer = store.create("rw", None, container=True)
    limits.limit(layer.directory, limits.wanted({}, container=True))
    with pytest.raises(OSError, match=r"[Ss]pace|[Qq]uota") as caught:
        (layer.diff / "file").write_bytes(bytes(4 << 20))
    assert caught.value.errno in (errno.ENOSPC, errno.EDQUOT)
    other = store.create("other", None, container=True)
    SizeLimits(store.home, "xfs").limit(other.directory, 1 << 20)  # another project, after a restart
    (other.diff / "file").write_bytes(bytes(1 << 18))
