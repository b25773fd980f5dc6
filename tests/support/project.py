"""What tests of several rooms share: where the project, the fixtures and a directory in memory are."""

import os
from pathlib import Path

import pytest

__all__ = ["FAST", "FIXTURES", "PROJECT", "require_fixtures"]

PROJECT = Path(__file__).resolve().parent.parent.parent
FIXTURES = Path(os.environ.get("CVMFS_FIXTURES", PROJECT.parent / "shared" / "fixtures"))
FAST = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""A directory in memory, if there is one."""


def require_fixtures() -> Path:
    """The folder of repositories published by a real CernVM-FS server; skips where it is not there."""
    if not FIXTURES.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no fixtures at {FIXTURES}: set CVMFS_FIXTURES")
        pytest.skip(f"no fixtures at {FIXTURES}: set CVMFS_FIXTURES")
    return FIXTURES
