"""The mounts that containerd is told to make."""

from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.overlay import LAYER_LIMIT, plain_options
from cvmfs_graphdriver.snapshotter.errors import SnapshotStateError
from cvmfs_graphdriver.snapshotter.mount_options import bind_mount, overlay_mount

PLAIN = tuple(f"{key}={value}" for key, value in plain_options().items())


def short(directory: Path) -> Path:
    return Path("/s/l") / directory.parent.name


def directories(count: int) -> list[Path]:
    return [Path(f"/var/lib/cvmfs-snapshotter/snapshots/{number}/fs") for number in range(count)]


def test_one_directory_is_bound() -> None:
    mount = bind_mount(Path("/a"), writable=True)
    assert (mount.type, mount.source, mount.options) == ("bind", "/a", ("rw", "rbind"))
    assert bind_mount(Path("/a"), writable=False, extra=["uidmap=0:1:1"]).options == (
        "uidmap=0:1:1",
        "ro",
        "rbind",
    )


def test_several_are_merged_by_one_option() -> None:
    mount = overlay_mount([Path("/b"), Path("/a")], short, upper=Path("/u"), work=Path("/w"), extra=["x=y"])
    assert (mount.type, mount.source) == ("overlay", "overlay")
    assert mount.options == (*PLAIN, "workdir=/w", "upperdir=/u", "x=y", "lowerdir=/b:/a")
    assert overlay_mount([Path("/b"), Path("/a")], short).options == (*PLAIN, "lowerdir=/b:/a")


def test_names_are_short_where_long_ones_would_not_fit() -> None:
    fitting, long = overlay_mount(directories(60), short), overlay_mount(directories(90), short)
    assert len(",".join(fitting.options)) < 4096 - 512
    assert fitting.options[-1].startswith("lowerdir=/var/lib/")
    assert long.options[-1] == "lowerdir=" + ":".join(f"/s/l/{number}" for number in range(90))


def test_more_layers_than_the_kernel_takes_are_refused() -> None:
    overlay_mount(directories(LAYER_LIMIT), short)
    with pytest.raises(SnapshotStateError, match="501 layers are more than the 500"):
        overlay_mount(directories(LAYER_LIMIT + 1), short)
