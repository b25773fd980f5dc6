"""Names in images that contain commands for the terminal, or lines for the log."""

import io
import logging
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.cli.repo import tag
from cvmfs_graphdriver.client.configuration.operation import OperationSettings
from cvmfs_graphdriver.errors import printable
from cvmfs_graphdriver.kernel.logline import log_to_terminal
from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.tar import TarReader
from cvmfs_graphdriver.planes.service.process import configure_logging
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.history import Tag
from cvmfs_graphdriver.repository.paths import shown
from tests.support.images import TestLayer, write_layout
from tests.support.tars import tar_of

EVIL = "a\x1b]0;owned\x07\r\nERROR forged\u202e\x9b2J"
SAFE = r"a\x1b]0;owned\x07\r\nERROR forged\u202e\x9b2J"


@contextmanager
def nothing_set_up() -> Iterator[logging.Logger]:
    """Logging as it is in a process that has just begun."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        yield root
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = before
        root.setLevel(level)


def _damaged_layer() -> bytes:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": EVIL, "GNU.sparse.size": "10", "GNU.sparse.map": "5,1,1,1"}
    return tar_of(info)


def test_names_are_shown_harmlessly() -> None:
    assert printable(EVIL) == SAFE
    assert shown(EVIL.encode()) == SAFE
    assert printable("Größe 1") == "Größe 1"
    assert printable("\udcff") == r"\udcff"


def test_errors_do_not_command_the_terminal() -> None:
    with pytest.raises(LayerFormatError) as caught:
        list(TarReader("the layer", io.BytesIO(_damaged_layer())))
    assert SAFE in str(caught.value)
    assert str(caught.value).isprintable()


def test_programs_do_not_command_the_terminal(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", [TestLayer(_damaged_layer(), "zstd")])
    command = "from cvmfs_graphdriver.cli.docker2cvmfs import main; main()"
    image = f"oci:{tmp_path / 'layout'}:{EVIL}"
    ended = subprocess.run(
        [sys.executable, "-c", command, "thin", image, "a.b/layers"], capture_output=True, check=False
    )
    assert ended.returncode != 0
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert SAFE in lines[0]


def _log(name: str) -> None:
    logging.getLogger("test").warning("refused %s", name)
    try:
        raise ValueError(name)
    except ValueError:
        logging.getLogger("test").exception("a defect")


def test_records_in_a_terminal_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_set_up() as root:
        log_to_terminal("%(levelname)s %(message)s", logging.INFO)
        _log(EVIL)
        assert len(root.handlers) == 1
    refused, defect = capsys.readouterr().err.splitlines()
    assert refused == f"WARNING refused {SAFE}"
    assert defect.startswith(r"ERROR a defect\nTraceback ")
    assert defect.endswith(f"ValueError: {SAFE}")


def test_records_in_a_file_are_lines(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with nothing_set_up():
        configure_logging(OperationSettings(file, file, logging.INFO, None, "a.b", None, None, frozenset()))
        _log(EVIL)
    lines = file.read_text().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith(f"(a.b) refused {SAFE}")


def test_tags_are_listed_harmlessly() -> None:
    line = tag._line(Tag(EVIL, Digest.of(b"root"), 1, 0, EVIL, 1))
    assert line.count(SAFE) == 2
    assert line.replace("\t", "").isprintable()
