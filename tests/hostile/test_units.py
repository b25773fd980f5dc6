"""What the units in ``packaging/`` leave to a service that has been taken over, as systemd judges it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = sorted(PACKAGING.glob("*.service"))
EXPOSURE = 20
"""The worst that systemd may find, in tenths: 100 is a root service without limits."""

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)


def test_there_are_units() -> None:
    assert UNITS


@each_unit
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_a_unit_leaves_little_exposed(unit: Path) -> None:
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={EXPOSURE}",
        str(unit),
    ]
    judged = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout + judged.stderr


@each_unit
def test_a_unit_has_a_user_of_its_own_and_listens_on_this_machine_only(unit: Path) -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))
    assert settings["User"] not in {"", "root", "nobody"}
    assert settings["NoNewPrivileges"] == "true"
    assert settings["CapabilityBoundingSet"] == ""
    assert settings["ProtectSystem"] == "strict"
    assert settings["PrivateTmp"] == "true"
    assert "--host" not in settings["ExecStart"]
    assert "MemoryMax" in settings
