"""containerd's own conformance suite for snapshotters, over our socket.

It is compiled from Debian's packages golang-go and golang-github-containerd-containerd-dev, which the root
directory of ``make test-matrix`` has; tests/snapshotter/test_service.py checks the same without them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.installation import Installation
from tests.support.containerd import shared_directory

pytestmark = [pytest.mark.root, pytest.mark.docker]

_SOURCE = Path(__file__).with_name("suite_test.go")
_GO = {
    "GO111MODULE": "off",
    "GOPATH": "/usr/share/gocode",
    "CGO_ENABLED": "0",
    "GOCACHE": "/var/cache/go-build",
}
_SERVE = """#!/bin/sh
printf 'state = "%s"\\nsocket = "%s"\\ndata_plane = "{plane}"\\n' "$1" "$2" >"$1.toml"
exec {program} snapshotter serve --config "$1.toml"
"""
_LEAST = 20
"""The suite of containerd 2.1 has 21 tests."""


@pytest.mark.timeout(1800)  # the first time, Go compiles containerd
def test_the_suite_passes(installation: Installation) -> None:
    if installation.root is None or not (installation.root / "usr/bin/go").exists():
        pytest.skip("needs a root directory with golang: make test-matrix")
    with shared_directory() as scratch:
        shutil.copy(_SOURCE, scratch)
        subprocess.run(
            [
                *installation.command("/usr/bin/env"),
                *(f"{name}={value}" for name, value in _GO.items()),
                *("go", "test", "-c", "-o", str(scratch / "suite"), str(scratch / _SOURCE.name)),
            ],
            check=True,
            env={**os.environ, "TMPDIR": str(scratch), "HOME": "/root"},
        )
        for plane in ("fuse", "erofs"):
            serve = scratch / f"serve-{plane}"
            program = Path(sys.executable).with_name("cvmfs-graphdriver")
            serve.write_text(_SERVE.format(plane=plane, program=program))
            serve.chmod(0o755)
            done = subprocess.run(
                [scratch / "suite", "-test.v", "-test.parallel=4"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                env={**os.environ, "SNAPSHOTTER": str(serve), "TMPDIR": str(scratch)},
            )
            output = done.stdout.decode(errors="replace")
            assert done.returncode == 0, output[-10_000:]
            assert len(re.findall(r"^    --- PASS:", output, re.MULTILINE)) >= _LEAST
