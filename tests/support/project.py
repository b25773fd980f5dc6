"""What tests of several rooms share: where the project, the fixtures and a directory in memory are."""

import os
from pathlib import Path

import pytest

__all__ = ["FAST", "FIXTURES", "IMPORT_EVERYTHING", "PROJECT", "require_fixtures"]

PROJECT = Path(__file__).resolve().parent.parent.parent
FIXTURES = Path(os.environ.get("CVMFS_FIXTURES", PROJECT.parent / "shared" / "fixtures"))
FAST = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""A directory in memory, if there is one."""

IMPORT_EVERYTHING = """
import importlib, os, pkgutil, sys
import cvmfs_graphdriver
names = [each.name for each in pkgutil.walk_packages(cvmfs_graphdriver.__path__, "cvmfs_graphdriver.")]
(extensions,) = (path for path in sys.path if path.endswith("lib-dynload"))
names += [each.partition(".")[0] for each in os.listdir(extensions)]
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""
"""A program that prints what cannot be imported of the package and of the standard library's extensions."""


def require_fixtures() -> Path:
    """The folder of repositories published by a real CernVM-FS server; skips where it is not there."""
    if not FIXTURES.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no fixtures at {FIXTURES}: set CVMFS_FIXTURES")
        pytest.skip(f"no fixtures at {FIXTURES}: set CVMFS_FIXTURES")
    return FIXTURES
