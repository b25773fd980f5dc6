"""What the tests of this room share: one S3 store for all of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.seaweed import Seaweed, seaweed


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    with tempfile.TemporaryDirectory(prefix="s3-", dir="/var/tmp") as place, seaweed(Path(place)) as store:
        yield store
