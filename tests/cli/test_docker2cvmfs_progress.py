"""Progress is for people: bars where a terminal is, nothing anywhere else."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.support.images import TestLayer, write_layout
from tests.support.tars import tar_of

_PROGRAM = Path(sys.executable).with_name("docker2cvmfs")
_LAYERS = [TestLayer(tar_of({"a": os.urandom(300_000)})), TestLayer(tar_of({"b": b"1"}))]


def _pull(tmp_path: Path, stderr: int) -> subprocess.CompletedProcess[bytes]:
    write_layout(tmp_path / "layout", _LAYERS)
    return subprocess.run(
        [_PROGRAM, "pull", f"oci:{tmp_path}/layout", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        check=True,
        timeout=60,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )


def _drain(descriptor: int) -> bytes:
    blocks: list[bytes] = []
    while True:
        try:
            block = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            return b"".join(blocks)
        if not block:
            return b"".join(blocks)
        blocks.append(block)


def test_a_terminal_shows_a_bar_for_each_layer(tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    try:
        done = _pull(tmp_path, theirs)
    finally:
        os.close(theirs)
    with os.fdopen(terminal, "rb", buffering=0) as ours:
        shown = _drain(ours.fileno())
    for layer in _LAYERS:
        assert layer.digest[7:19].encode() in shown
    assert b"2 layers to fetch" in shown
    assert len(done.stdout.splitlines()) == 2


def test_elsewhere_it_is_silent(tmp_path: Path) -> None:
    assert _pull(tmp_path, subprocess.PIPE).stderr == b""
