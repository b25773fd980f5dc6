"""docs/cli.md has what the programs say of themselves."""

import subprocess
import sys

from click.testing import CliRunner

from cvmfs_graphdriver.cli.main import command
from tests.support.project import PROJECT

PAGE = PROJECT / "docs" / "cli.md"


def test_the_page_is_up_to_date() -> None:
    generated = subprocess.run(
        [sys.executable, PROJECT / "scripts" / "generate-cli-docs"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert PAGE.read_text() == generated.stdout, "docs/cli.md is out of date: run 'make docs-cli'"


def test_the_page_has_what_help_prints() -> None:
    runner = CliRunner()
    for words in (["mount"], ["repo", "ingest"], ["cache", "pin"]):
        printed = runner.invoke(
            command, [*words, "--help"], prog_name="cvmfs-graphdriver", terminal_width=100
        )
        assert printed.exit_code == 0
        assert "\n".join(line.rstrip() for line in printed.stdout.splitlines()) in PAGE.read_text()
