"""The parts that all tests of faults share, and the table that they fill in.

With ``RELIABILITY_TABLE=FILE`` in the environment, the results are written there as Markdown (``make
reliability``).
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.site import FQRN, Figures, Site, make_repository
from tests.support.daemons import Daemon, nginx, open_to_daemons, squid

Record = Callable[..., None]

_HEAD = """\
# Behaviour under faults

Real components (Debian's squid and nginx, name servers, disks, processes) are killed, stopped, filled and
damaged while a reader reads and hashes a tree of 121 files over and over, without a cache unless stated
otherwise. Timeouts are 1 second, a transfer is tried twice, and a component that failed is retried after 1
second. No wrong byte was read in any case: the tests would fail. `make reliability` runs them
(`tests/reliability/`) and writes this page.

| fault | correct reads meanwhile | reads refused with EIO | slowest read | recovered |
|---|---|---|---|---|
"""


@pytest.fixture(scope="session")
def record() -> Iterator[Record]:
    """Tell of a case: what failed, the figures of that time, and how long after its end all was well."""
    rows: list[str] = []

    def note(what: str, meanwhile: Figures, after: float) -> None:
        again = "at once" if after < 1 else f"after {after:.0f} s"
        refused = meanwhile.refused or "–"
        rows.append(f"| {what} | {meanwhile.right} | {refused} | {meanwhile.slowest:.1f} s | {again} |")

    yield note
    target = os.environ.get("RELIABILITY_TABLE")
    if target:
        Path(target).write_text(_HEAD + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], list[Daemon]]]:
    """A repository, two servers of it with a directory each, two proxies."""
    home = tmp_path_factory.mktemp("reliability")
    _, truth = make_repository(home)
    shutil.copytree(home / "www", home / "www2")
    open_to_daemons(home)
    with (
        nginx(home / "nginx1", home / "www") as one,
        nginx(home / "nginx2", home / "www2") as two,
        squid(home / "squid1") as three,
        squid(home / "squid2") as four,
    ):
        yield home, truth, [one, two, three, four]


@pytest.fixture
def site(parts: tuple[Path, dict[str, str], list[Daemon]], tmp_path: Path) -> Site:
    home, truth, daemons = parts
    return Site(tmp_path, truth, home / "keys", tuple(daemons[:2]))


@pytest.fixture
def proxies(parts: tuple[Path, dict[str, str], list[Daemon]]) -> list[Daemon]:
    return parts[2][2:]


@pytest.fixture
def storage(parts: tuple[Path, dict[str, str], list[Daemon]]) -> Path:
    """What the first server serves."""
    return parts[0] / "www" / "cvmfs" / FQRN


@pytest.fixture
def first_server(parts: tuple[Path, dict[str, str], list[Daemon]]) -> Path:
    """The directory of the first server's daemon."""
    return parts[0] / "nginx1"
