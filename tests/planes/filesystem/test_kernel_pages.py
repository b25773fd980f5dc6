"""Files that the kernel serves by itself: their use is seen again after a while."""

import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.kernel.fuse.wire import StatFs
from cvmfs_graphdriver.planes.filesystem.kernel_pages import KernelPages
from cvmfs_graphdriver.planes.filesystem.revision_filesystem import Presentation, RevisionFilesystem
from cvmfs_graphdriver.planes.walk.page_cache import Offer
from tests.support.entries import file
from tests.support.memory_filesystem import serving
from tests.support.published import Published, published


def test_what_was_given_since_is_not_due() -> None:
    pages = KernelPages()
    pages.add({1, 2})
    assert pages.due() == set()
    pages.add({2, 3})
    assert pages.due() == {1}
    assert pages.due() == {2, 3}
    assert pages.due() == set()


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_graphdriver.planes.filesystem.kernel_pages._LIMIT", 100)
    pages = KernelPages()
    for first in range(0, 1000, 50):
        pages.add(range(first, first + 50))
    pages.due()
    assert pages.due() == set(range(100))


class NoPages:
    """Takes nothing unasked."""

    absent: Callable[[Collection[int]], None]

    def offer(self, files: Sequence[Offer]) -> None:
        del files

    def settle(self, seconds: float) -> None:
        del seconds

    def close(self) -> None: ...


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    with published(tmp_path / "repository") as repository:
        repository.publish({b"/d": [file("/much", b"much" * 10_000), file("/seldom", b"seldom" * 10_000)]})
        yield repository


@pytest.mark.root
def test_what_the_kernel_serves_by_itself_stays_in_the_cache(repository: Published, tmp_path: Path) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    with closing(Client(repository.settings())) as client:
        filesystem = RevisionFilesystem(
            client.mount(), Presentation(), lambda: StatFs(0, 0, 0, 0), client.counters, NoPages()
        )
        eviction = client.cache.eviction
        assert eviction is not None

        def read(name: str) -> None:
            time.sleep(0.01)
            subprocess.run(["cat", target / "d" / name], check=True, stdout=subprocess.DEVNULL)

        def used_last() -> list[str]:
            paths = [record.path for record in eviction.records() if record.size in {40_000, 60_000}]
            return [Path(path.partition(",")[0]).name for path in paths]

        with serving(filesystem, target) as server, closing(filesystem):
            read("much")
            read("seldom")
            read("much")  # which nobody sees
            assert used_last() == ["much", "seldom"]
            for _ in range(2):
                filesystem.close_evicted()
                due = filesystem.to_be_asked_for()
                for inode in due:
                    server.invalidate_inode(inode)
            assert set(due) == {(target / "d" / name).stat().st_ino for name in ("much", "seldom")}
            read("much")
            assert used_last() == ["seldom", "much"]
            eviction.shrink(eviction.used - 1)
            assert used_last() == ["much"]


@pytest.mark.root
def test_a_cache_is_filling_when_three_quarters_are_used(repository: Published) -> None:
    with closing(Client(repository.settings())) as client:
        assert client.cache.eviction is not None
        client.mount()
        client.cache.eviction.limit = 4 * client.cache.eviction.used
        assert not client.is_cache_filling
        client.cache.eviction.limit = client.cache.eviction.used
        assert client.is_cache_filling
