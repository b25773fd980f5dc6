"""Telling systemd that a service is ready, at a socket in the file system or in the abstract name space."""

import socket
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.readiness import notify_ready


@pytest.mark.parametrize("abstract", [False, True])
def test_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool) -> None:
    place = f"@{tmp_path}/notify" if abstract else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(place.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        notify_ready()
        listener.setblocking(False)
        assert listener.recv(100) == b"READY=1"
        notify_ready()  # once
        with pytest.raises(BlockingIOError):
            listener.recv(100)


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify_ready()
