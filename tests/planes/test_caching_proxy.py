"""New layers behind a real squid that answers from its memory."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.talk_socket import ask
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.planes.errors import LayerNotFoundError
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath
from tests.support.daemons import open_to_daemons, squid
from tests.support.entries import file
from tests.support.mounts import end, pids_serving
from tests.support.published import FQRN, Published, published

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("squid"), reason="squid is not installed"),
]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    with published(tmp_path / "repository") as repository:
        repository.publish({b"/layers/aa": [file("/file", b"old")]})
        yield repository


@pytest.fixture
def plane(repository: Published, tmp_path: Path) -> Iterator[FusePlane]:
    """Behind a proxy; the repository is mounted, so that the proxy has its manifest."""
    open_to_daemons(tmp_path)
    home = tmp_path / "home"
    with squid(tmp_path / "squid", keeps=True) as proxy:
        plane = FusePlane(home, repository.etc, {"CVMFS_HTTP_PROXY": proxy.url})
        plane.repository(LayerPath(FQRN, b"/layers/aa"))
        yield plane
        for mount in reversed(mounts_below(home)):
            umount(mount.mount_point, UmountFlag.DETACH)
        end(home / FQRN)


def test_a_new_layer_is_seen_at_once(repository: Published, plane: FusePlane) -> None:
    repository.publish({b"/layers/bb": [file("/file", b"new")]})
    assert ask(plane.settings(FQRN).talk_socket, "remount sync") == "Catalog up to date\n"
    server = pids_serving(plane.mount_point(FQRN))
    found = plane.repository(LayerPath(FQRN, b"/layers/bb"))
    assert (found / "layers/bb/file").read_bytes() == b"new"
    assert pids_serving(plane.mount_point(FQRN)) == server


def test_images_that_name_absent_layers_cause_few_requests(repository: Published, plane: FusePlane) -> None:
    def look(name: bytes) -> None:
        with pytest.raises(LayerNotFoundError, match="there is no layer"):
            plane.repository(LayerPath(FQRN, b"/layers/" + name))

    before, started = repository.served.requests, time.monotonic()
    server = pids_serving(plane.mount_point(FQRN))
    look(b"absent")
    assert repository.served.requests - before == 1
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(look, [b"absent%d" % number for number in range(100)]))
    assert repository.served.requests - before <= 1 + (time.monotonic() - started) / 3
    assert repository.served.requests - before > 1, "who looks later is not told what was found earlier"
    assert pids_serving(plane.mount_point(FQRN)) == server
