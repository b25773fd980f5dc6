"""What holds for every test, and which Docker they are for."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.installation import HERE, Installation
from demo.seaweed import Seaweed, seaweed
from tests.support.engines import Plugins

# What a shell starts in the background ignores these, and so would the programs that tests start.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--docker-root", type=Path, help="the root directory of another Docker to test with")


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    """The Docker to test with: this system's, or that of ``--docker-root``."""
    root: Path | None = request.config.getoption("--docker-root")
    return HERE if root is None else Installation(root)


@pytest.fixture(scope="session")
def plugins() -> Iterator[Plugins]:
    """Starts engines with our plugin."""
    with tempfile.TemporaryDirectory(prefix="plugins-", dir="/var/tmp") as place:
        yield Plugins(Path(place))


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    """One S3 store for all tests that need one."""
    with tempfile.TemporaryDirectory(prefix="s3-", dir="/var/tmp") as place, seaweed(Path(place)) as store:
        yield store
