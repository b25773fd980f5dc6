"""What is behind in a plugin is told, by what Debian's archive and the Python packages of today are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.daemons import plugin_tarball
from tests.support.project import PROJECT

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not os.environ.get("FETCH_PACKAGES"), reason="FETCH_PACKAGES is not set: 'make test-matrix' sets it"
    ),
]


def updates(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, project / "scripts/plugin-updates"], capture_output=True, text=True, check=False
    )


def test_what_is_behind_is_told(tmp_path: Path) -> None:
    for name in ("scripts", "pyproject.toml"):
        subprocess.run(["cp", "-r", PROJECT / name, tmp_path], check=True)
    nothing = updates(tmp_path)
    assert nothing.returncode == 1
    assert "run 'make plugin' first" in nothing.stderr

    (tmp_path / "build").mkdir()
    name = plugin_tarball(PROJECT).name.replace(".tar.gz", ".cdx.json")
    text = (PROJECT / "build" / name).read_text()
    for package in ("libc6", "click"):
        assert f"/{package}@" in text
        text = text.replace(f"/{package}@", f"/{package}@0.")
    (tmp_path / "build" / name).write_text(text)
    behind = updates(tmp_path)
    assert behind.returncode == 1
    lines = behind.stdout.splitlines()
    assert [line for line in lines if line.startswith("Debian libc6 0.2.")]
    assert [line for line in lines if line.startswith("Python click 0.8.")]
    assert "Renew them with: make plugin RENEW=1" in lines
    assert "Renew them with: make lock plugin" in lines
